// What is no call of the macro at all.
use tallybus::{count, counter};

fn main() {
    let status = 200u16;
    count!(); //~ expected `count!("name")` or `count!("name", value)`, then tags as `, key = value`
    count!("requests", 1, route "/v1"); //~ expected `count!("name")` or `count!("name", value)`
    count!("requests", status: 200); //~ expected `count!("name")` or `count!("name", value)`
    count!("requests", 1, 2); //~ expected `count!("name")` or `count!("name", value)`
    count!("requests", route = "/v1", 1); //~ expected `count!("name")` or `count!("name", value)`
    count!("requests", 200 = status); //~ expected `&str`
    counter!("requests", 1); //~ expected `counter!("name")`, then tags as `, key = value`
}
