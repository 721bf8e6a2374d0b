//! Every backend at once: real servers, and a sink's settings for each.

use tallybus_tests::{
    ClickHouseServer, DynamoDbFront, DynamoDbServer, InfluxServer, KafkaServer, PostgresServer, Receiver, Redshift,
};

/// The servers, as long as they are needed.
#[derive(Debug)]
pub struct Backends {
    /// InfluxDB 1, with the database `counts`.
    pub influx: InfluxServer,
    /// For the PostgreSQL sink.
    pub postgres: PostgresServer,
    /// The Data API, over a PostgreSQL of its own.
    pub redshift: Redshift,
    /// Before dynalite.
    pub dynamodb: DynamoDbFront,
    /// A third party that honours `Idempotency-Key`.
    pub receiver: Receiver,
    clickhouse: ClickHouseServer,
    _behind_redshift: PostgresServer,
    _dynalite: DynamoDbServer,
}

impl Backends {
    /// `None` where one of them is not installed and need not be.
    ///
    /// # Panics
    /// When one does not start.
    pub fn start() -> Option<Self> {
        let influx = tallybus_tests::influxdb()?;
        influx.create_database("counts").unwrap();
        let (postgres, behind_redshift) = (tallybus_tests::postgres()?, tallybus_tests::postgres()?);
        let dynalite = tallybus_tests::dynamodb()?;
        Some(Self {
            influx,
            postgres,
            redshift: tallybus_tests::redshift(&behind_redshift),
            dynamodb: DynamoDbFront::start(&dynalite.url()).unwrap(),
            receiver: Receiver::start().unwrap(),
            clickhouse: tallybus_tests::clickhouse()?,
            _behind_redshift: behind_redshift,
            _dynalite: dynalite,
        })
    }

    /// The sinks' names and tables; `{dir}` stands for the fixture's directory.
    pub fn sinks(&self) -> Vec<(&'static str, String)> {
        vec![
            ("influx", format!("kind = 'influxdb'\napi = 'v1'\nurl = '{}'\ndatabase = 'counts'\n", self.influx.url())),
            ("local", "kind = 'sqlite'\npath = '{dir}/counters.db'\n".to_owned()),
            ("postgres", self.postgres()),
            ("redshift", self.redshift()),
            ("dynamo", self.dynamodb()),
            ("vendor", self.http()),
            ("click", self.clickhouse()),
            (
                "files",
                "kind = 'parquet'\npath = '{dir}/counts'\ncreate = true\nwindow = '10s'\nbatch = { max_delay = '2s' }\n"
                    .to_owned(),
            ),
            // A selection of its own: fewer series, longer windows, the same total.
            (
                "merged",
                "kind = 'sqlite'\npath = '{dir}/merged.db'\nwindow = '10s'\n\
                 select = { drop_tags = ['place'], tags = { env = 'test' } }\n"
                    .to_owned(),
            ),
        ]
    }

    fn postgres(&self) -> String {
        format!(
            "kind = 'postgres'\nhost = '127.0.0.1'\nport = {}\ndatabase = 'counters'\nuser = '{}'\npassword = '{}'\n",
            self.postgres.port(),
            self.postgres.user(),
            self.postgres.password()
        )
    }

    fn redshift(&self) -> String {
        format!(
            "kind = 'redshift'\nworkgroup = '{}'\ndatabase = '{}'\nregion = 'us-east-1'\nendpoint = '{}'\n\
             access_key_id = '{}'\nsecret_access_key = 'secret'\nwindow = '10s'\nbatch = {{ max_delay = '2s' }}\n",
            Redshift::WORKGROUP,
            Redshift::DATABASE,
            self.redshift.url(),
            Redshift::ACCESS_KEY
        )
    }

    fn dynamodb(&self) -> String {
        format!(
            "kind = 'dynamodb'\ntable = 'counts'\nregion = 'us-east-1'\nendpoint = '{}'\naccess_key_id = 'tests'\n\
             secret_access_key = 'secret'\nwindow = '1m'\nbatch = {{ max_delay = '4s' }}\n",
            self.dynamodb.url()
        )
    }

    fn http(&self) -> String {
        let url = self.receiver.url();
        format!("kind = 'http'\nurl = '{url}/write'\nread_url = '{url}/rows'\nidempotent = true\n")
    }

    fn clickhouse(&self) -> String {
        format!(
            "kind = 'clickhouse'\nurl = '{}'\ndatabase = 'counters'\nuser = '{}'\npassword = '{}'\ncreate = true\n\
             window = '10s'\nbatch = {{ max_delay = '2s' }}\n",
            self.clickhouse.url(),
            self.clickhouse.user(),
            self.clickhouse.password()
        )
    }
}

/// A settings file with these sinks.
pub fn settings(kafka: &KafkaServer, sinks: &[(&str, String)]) -> String {
    let mut text = format!("[bus]\nkind = 'kafka'\nbrokers = '{}'\npartitions = 4\n", kafka.bootstrap());
    for (name, table) in sinks {
        text.push_str(&format!("\n[sinks.{name}]\n{table}"));
    }
    text
}
