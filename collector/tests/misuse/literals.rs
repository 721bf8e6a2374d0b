// Literals that say something else than they should.
use tallybus::{count, counter};

fn main() {
    let route = "/v1";
    count!(""); //~ the name of a counter is not empty
    count!("", route = route); //~ the name of a counter is not empty
    counter!("a\nb"); //~ the name of a counter has no control characters
    count!("requests", 1.5); //~ a count is an unsigned whole number
    count!("requests", true, route = route); //~ a count is an unsigned whole number
    count!("requests", route = "/v1", route = "/v2"); //~ a tag's key is given twice
    count!("requests", route = route, "route" = "/v2"); //~ a tag's key is given twice
    count!("requests", "" = 1); //~ a tag's key is not empty
    count!("requests", "a\tb" = route); //~ a tag's key has no control characters
}
