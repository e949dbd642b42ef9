//! A real API server on a real socket, with a controller made up by the test.

#![allow(dead_code, reason = "no test needs all of it")]

use std::path::PathBuf;
use std::process::{Command, Stdio};
use thiao_api::SOCKET;
use thiao_controller::api::{Query, server};
use thiao_testkit::process;
use thiao_testkit::wait::until;
use tokio::sync::mpsc;

/// A served state folder; ends with its runtime.
pub struct Served {
    _runtime: tokio::runtime::Runtime,
    pub dir: tempfile::TempDir,
    pub config: PathBuf,
}

impl Served {
    pub fn new<F: Future<Output = ()> + Send + 'static>(
        controller: impl FnOnce(mpsc::Receiver<Query>) -> F,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join(SOCKET);
        let (queries, asked) = mpsc::channel(4);
        runtime.spawn(controller(asked));
        runtime.spawn(server::serve(socket.clone(), queries));
        until("the controller is served", || socket.exists());
        let config = dir.path().join("thiao.toml");
        std::fs::write(&config, format!("state_dir = {:?}\n", dir.path())).unwrap();
        Self {
            _runtime: runtime,
            dir,
            config,
        }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_thiao"));
        command
            .args(args)
            .env("THIAO_CONFIG", &self.config)
            .env("TZ", "UTC")
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> (i32, String, String) {
        process::run(&mut self.command(args))
    }

    #[track_caller]
    pub fn good(&self, args: &[&str]) -> String {
        let (code, out, err) = self.run(args);
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
        out
    }
}
