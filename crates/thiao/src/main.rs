//! The binary `thiao`, also called as `thiaod`.

fn main() -> std::process::ExitCode {
    thiao::cli::main(std::env::args_os().collect())
}
