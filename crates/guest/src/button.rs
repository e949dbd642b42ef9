//! The power button of a VM: how OpenNebula asks it to end.

use crate::{Event, modules};
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use thiao_guest::protocol::Modules;

/// Bytes of the kernel's `struct input_event` on 64 bits: a time of 16, then
/// type, code and value (`linux/input.h`).
const EVENT: usize = 24;

/// `EV_KEY`, `KEY_POWER`, and 1 for a key that goes down (`linux/input-event-codes.h`).
const POWER_PRESSED: [u8; 8] = [1, 0, 116, 0, 1, 0, 0, 0];

/// Waits for the button beside all else. A guest without one is only ended less gently.
pub fn attend(events: Sender<Event>) {
    if let Err(e) = modules::load(Modules::Button) {
        return eprintln!("thiao-guest: no power button: {e}");
    }
    for path in inputs() {
        let events = events.clone();
        std::thread::spawn(move || {
            if wait(path).is_some() {
                // The main loop is gone only when the guest ends.
                let _ = events.send(Event::Pressed);
            }
        });
    }
}

fn inputs() -> Vec<PathBuf> {
    fs::read_dir("/dev/input")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"event"))
        .map(|entry| entry.path())
        .collect()
}

/// Returns when the button is pressed; `None` when the device says no more.
fn wait(path: PathBuf) -> Option<()> {
    let mut device = File::open(path).ok()?;
    let mut event = [0; EVENT];
    loop {
        device.read_exact(&mut event).ok()?;
        if event.ends_with(&POWER_PRESSED) {
            return Some(());
        }
    }
}
