//! The program `thiao`, also called as `tsub`.

fn main() -> std::process::ExitCode {
    thiao::cli::main(std::env::args_os().collect())
}
