//! Compares the bus with every backend ([`audit`]), compares backends with each other ([`compare`]), replays dead letters to
//! the sink that refused them ([`replay`]), and reads what worker processes say of themselves ([`heartbeats`]).

pub mod audit;
pub mod compare;
pub mod heartbeats;
pub mod replay;
mod streams;
