//! The `invaspread` program.
fn main() {}
