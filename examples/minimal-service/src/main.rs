//! `TALLYBUS_COLLECTOR_BUS=kafka://127.0.0.1:9092 cargo run`; docs/services.md has the other variables.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let counts = tallybus::init_from_env()?;
    for status in [200, 200, 404] {
        tallybus::count!("http.requests", route = "/v1/sites", status = status);
    }
    let report = counts.shutdown(std::time::Duration::from_secs(10));
    println!("{report}");
    if report.is_complete() { Ok(()) } else { Err("not every count was delivered".into()) }
}
