//! Compares the bus with every backend ([`audit`]), and replays dead letters to the sink that refused them
//! ([`replay`]).

pub mod audit;
pub mod replay;
mod streams;
