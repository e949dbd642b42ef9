//! One target under libFuzzer: `FUZZ_TARGET` names it, the arguments are libFuzzer's.
//! Without a name it lists all: name, longest input, folders with seeds. `cargo xtask
//! fuzz` builds and runs it.

#![no_main]

use std::process::exit;
use std::sync::OnceLock;
use thiao_fuzz::{TARGETS, Target};

static TARGET: OnceLock<&Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let Ok(wanted) = std::env::var("FUZZ_TARGET") else {
            for target in &TARGETS {
                println!("{} {} {}", target.name, target.longest, target.seeds.join(" "));
            }
            exit(0);
        };
        let Some(target) = TARGETS.iter().find(|target| target.name == wanted) else {
            eprintln!("FUZZ_TARGET={wanted:?} is no target: run it without for a list");
            exit(2);
        };
        TARGET.get_or_init(|| target);
    },
    |input: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.check)(input);
        }
    }
);
