//! Checks what is on the bus against what every backend holds ([`audit`]), and sends dead letters back to the sink that refused
//! them ([`replay`]).

pub mod audit;
pub mod replay;
