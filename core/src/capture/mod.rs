//! Statement capture: what is counted, what is kept, what is hidden.
pub mod arena;
pub mod comment;
pub mod degrade;
pub mod entry;
pub mod histogram;
pub(crate) mod lexer;
pub mod limiter;
pub mod message;
pub mod normalize;
pub mod plan;
pub mod retention;
pub mod ring;
pub mod table;
mod utility;
