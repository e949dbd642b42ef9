//! `thiao.toml`.

use crate::input::says_something;
use std::path::Path;
use thiao_config::{ConfigError, Machine, parse};
use thiao_qemu::User;

/// A machine that is nobody's, with two users.
fn machine() -> Machine {
    Machine {
        name: "box".to_owned(),
        cpus: 4,
        memory_mb: 8000,
        program: "/opt/thiao/thiao".into(),
        resolv_conf: String::new(),
        any_port: (32_768, 60_999),
        one_xmlrpc: None,
        one_auth: None,
        home: Some("/home/me".into()),
        agent: "/usr/lib/thiao/thiao-guest".into(),
        user: |name| match name {
            "root" => Ok(user(name, 0)),
            "ada" => Ok(user(name, 1000)),
            "bob" => Ok(user(name, 1001)),
            _ => Err(format!("this machine has no user {name}")),
        },
        slurm: |_, _| Err("this machine has no Slurm".to_owned()),
    }
}

fn user(name: &str, id: u32) -> User {
    User {
        name: name.to_owned(),
        uid: id,
        gid: id,
        home: format!("/home/{name}").into(),
        shell: "/bin/sh".into(),
    }
}

/// What is read is shown so that it is read as the same; what is not read, is refused with reasons.
pub fn check(input: &[u8]) {
    // The file is read as text; what is none is refused before.
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    let file = Path::new("thiao.toml");
    let machine = machine();
    match parse(file, text, &machine) {
        Err(ConfigError::Wrong { problems, .. }) => {
            assert!(!problems.is_empty(), "refused without a reason");
            let told: usize = problems.iter().map(|problem| problem.message.len()).sum();
            let most = 1_000 * problems.len() + 24 * text.len();
            assert!(told <= most, "{told} bytes about {} problems", problems.len());
            let lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
            for problem in problems {
                assert!(problem.line <= lines, "{problem:?}");
                says_something(&problem.message, input);
            }
        }
        Err(error) => panic!("nothing was to be opened: {error}"),
        Ok(loaded) => {
            let shown = loaded.show();
            let again = parse(file, &shown, &machine).unwrap_or_else(|error| panic!("{error}\n{shown}"));
            assert_eq!(
                format!("{:?}", again.config),
                format!("{:?}", loaded.config),
                "{shown}"
            );
        }
    }
}
