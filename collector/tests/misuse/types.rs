// Values that cannot be counted, or cannot be tags.
use tallybus::{count, counter};

struct Route;

fn main() {
    let (signed, float, route) = (3i64, 1.5f64, Route);
    count!("requests", signed); //~ a counter cannot be raised by `i64`
    count!("requests", float, status = 200); //~ a counter cannot be raised by `f64`
    count!("requests", -signed); //~ a counter cannot be raised by `i64`
    count!("requests", -1); //~ cannot apply unary operator `-` to type `u64`
    count!("requests", u128::from(7u8)); //~ a counter cannot be raised by `u128`
    count!("requests", route = route); //~ `Route` cannot be the value of a tag
    count!("requests", ratio = float); //~ `f64` cannot be the value of a tag
    counter!("requests", route = &route); //~ `Route` cannot be the value of a tag
    count!(7); //~ mismatched types
    count!(route); //~ mismatched types
}
