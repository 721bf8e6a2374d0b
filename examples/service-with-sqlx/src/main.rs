//! `TALLYBUS_COLLECTOR_BUS=kafka://127.0.0.1:9092 cargo run`: SQLite through sqlx, and counts, in one program.
use std::error::Error;
use std::time::Duration;

use sqlx::SqlitePool;
use tallybus::count;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let counts = tallybus::init_from_env()?;
    let pool = SqlitePool::connect("sqlite::memory:").await?;
    sqlx::query("CREATE TABLE builds (id INTEGER PRIMARY KEY, plan TEXT NOT NULL)").execute(&pool).await?;
    for plan in ["free", "paid", "free"] {
        sqlx::query("INSERT INTO builds (plan) VALUES (?)").bind(plan).execute(&pool).await?;
        count!("builds", plan = plan);
    }
    let (stored,): (i64,) = sqlx::query_as("SELECT count(*) FROM builds").fetch_one(&pool).await?;
    pool.close().await;
    let report = counts.shutdown(Duration::from_secs(10));
    println!("{stored} rows; {report}");
    if report.is_complete() { Ok(()) } else { Err("not every count was delivered".into()) }
}
