//! A program with nothing in it but the shim, for the tests of this crate.

fn main() {
    std::process::exit(krate_runtime::reexec(std::env::args_os()).unwrap_or(2));
}
