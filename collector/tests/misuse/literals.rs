// Literals that say something else than they should.
use tallybus::{count, counter};

fn main() {
    let route = "/v1";
    count!(""); //~ the name of a counter must not be empty
    count!("", route = route); //~ the name of a counter must not be empty
    counter!("a\nb"); //~ the name of a counter must not contain control characters
    count!("requests", 1.5); //~ a count must be an unsigned whole number
    count!("requests", true, route = route); //~ a count must be an unsigned whole number
    count!("requests", route = "/v1", route = "/v2"); //~ a tag key is given twice
    count!("requests", route = route, "route" = "/v2"); //~ a tag key is given twice
    count!("requests", "" = 1); //~ a tag key must not be empty
    count!("requests", "a\tb" = route); //~ a tag key must not contain control characters
}
