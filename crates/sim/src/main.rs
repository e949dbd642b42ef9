//! The program `thiao-sim`, which `thiao sim` runs.

fn main() -> std::process::ExitCode {
    thiao_sim::cli::main(std::env::args_os().collect())
}
