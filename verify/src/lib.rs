//! Compares the bus with every backend ([`audit`]), compares backends with each other ([`compare`]), replays dead letters to
//! the sink that refused them ([`replay`]), reads what worker processes say of themselves ([`heartbeats`]), tells up to which
//! time every sink is complete ([`producers`]), and puts together what goes on at this moment ([`live`]).

pub mod audit;
pub mod compare;
pub mod heartbeats;
pub mod live;
pub mod producers;
pub mod replay;
mod streams;
