//! What the first process of a container and the gateway have to say to each other, shared by both.
//!
//! [`protocol`] has the words, [`wire`] carries them, with file descriptors beside them, and [`closing`] lets go of those that are not trusted.
//! None knows what either side does with them.

pub mod closing;
pub mod protocol;
pub mod wire;
