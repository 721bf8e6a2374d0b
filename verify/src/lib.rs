//! Compares the bus with every backend ([`audit`]), compares backends with each other ([`compare`]), and replays dead letters
//! to the sink that refused them ([`replay`]). What goes on at this moment: [`live`].

pub mod audit;
pub mod compare;
pub mod live;
pub mod replay;
mod streams;
