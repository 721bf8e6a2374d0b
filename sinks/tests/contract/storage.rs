//! How much storage a destination takes: what only one kind has to tell.

use serde_json::json;
use tallybus_sdk::testkit::contract::Backend;
use tallybus_sdk::testkit::contract::batches::{Maker, SECOND, START, series, settle_all};
use tallybus_sdk::{Sink, Storage};

use crate::subjects::influxdb::InfluxServerV1;
use crate::subjects::postgres::Postgres;
use crate::subjects::redshift::Warehouse;

async fn storage(sink: &dyn Sink) -> Storage {
    sink.read_back().expect("it can be read back").storage().await.expect("an answer")
}

async fn write(sink: &dyn Sink) {
    let batch = Maker::new(SECOND, 0).batch(&[(series("a", &[]), START, 1)]);
    settle_all(sink, &batch).await;
}

#[tokio::test]
async fn influxdb_tells_an_administrator_alone_how_large_its_shards_are() {
    let Some(server) = InfluxServerV1::new() else { return };
    let case = server.case();
    let (user, password) = case.ordinary_user();
    let sink = case.sink_as(&user, &password);
    write(&*sink).await;
    let Storage::NotOffered(reason) = storage(&*sink).await else { panic!("told") };
    assert!(reason.contains("administrator"), "{reason}");
    assert!(matches!(storage(&*case.sink(SECOND)).await, Storage::Bytes { bytes, .. } if bytes > 0));
    // What no right would help against is an error, and no reason.
    let away = case.sink_locked_out(SECOND);
    assert!(away.read_back().expect("it can be read back").storage().await.is_err());
}

#[tokio::test]
async fn redshift_lists_no_empty_table_and_counts_whole_blocks() {
    let Some(warehouse) = Warehouse::new(false) else { return };
    let case = tokio::task::spawn_blocking(move || warehouse.case()).await.expect("a case");
    let sink = case.with(&json!({}));
    assert!(matches!(storage(&*sink).await, Storage::NotOffered(_)), "nothing is listed of empty tables");
    write(&*sink).await;
    let Storage::Bytes { bytes, .. } = storage(&*sink).await else { panic!("not told") };
    assert!(bytes > 0 && bytes % (1 << 20) == 0, "{bytes}");
}

/// A table of the operator's own, as one that TimescaleDB or a partitioning by time makes: the parent holds nothing.
#[tokio::test]
async fn postgres_counts_the_partitions_of_its_table() {
    let Some(postgres) = Postgres::new() else { return };
    let case = tokio::task::spawn_blocking(move || postgres.case()).await.expect("a case");
    let sink = case.with(&json!({}));
    let Storage::Bytes { bytes: before, .. } = storage(&*sink).await else { panic!("not told") };
    case.administer(&format!(
        "DROP TABLE \"{0}\".counters; CREATE TABLE \"{0}\".counters (time timestamptz NOT NULL, time_ns bigint NOT NULL, \
         name text NOT NULL, tags jsonb NOT NULL, value bigint NOT NULL, topic text NOT NULL, partition bigint NOT NULL, \
         first_offset bigint NOT NULL) PARTITION BY RANGE (time); CREATE TABLE \"{0}\".p PARTITION OF \"{0}\".counters DEFAULT; \
         INSERT INTO \"{0}\".counters SELECT to_timestamp(n), n::bigint * 1000000000, 'a', '{{}}', 1, 't', 0, n FROM generate_series(1, 20000) n; \
         GRANT ALL ON \"{0}\".counters TO \"{0}\"",
        case.name
    ));
    let Storage::Bytes { bytes, .. } = storage(&*sink).await else { panic!("not told") };
    assert!(bytes > before + 20_000 * 50, "{before} and {bytes}");
}
