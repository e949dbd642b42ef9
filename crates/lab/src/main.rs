//! The program `thiao-lab`, which `thiao lab` runs.

fn main() -> std::process::ExitCode {
    thiao_lab::main(std::env::args_os().collect())
}
