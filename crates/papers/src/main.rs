//! `thiao-papers DIR`: see the library.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let done = match args.as_slice() {
        [dir] if !dir.as_encoded_bytes().starts_with(b"-") => thiao_papers::write(Path::new(dir)),
        _ => Err(anyhow::anyhow!(
            "usage: thiao-papers DIR: DIR/man and DIR/completions are written"
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("thiao-papers: {error:#}");
            ExitCode::FAILURE
        }
    }
}
