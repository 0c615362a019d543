//! The `ringspun` command.

fn main() {}
