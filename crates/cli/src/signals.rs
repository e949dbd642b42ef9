//! Ctrl-C and its kin: noted, and obeyed by the loops that ask.

use std::sync::atomic::{AtomicI32, Ordering};

static SEEN: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(signal: libc::c_int) {
    SEEN.store(signal, Ordering::SeqCst);
}

/// From now on SIGINT, SIGTERM and SIGHUP are noted instead of ending this process. One that whoever started it
/// has it ignore (`nohup`) stays ignored.
pub fn watch() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the actions are whole, and the handler only stores to an atomic.
        unsafe {
            let mut before: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &raw mut before);
            if before.sa_sigaction == libc::SIG_IGN {
                continue;
            }
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = note as extern "C" fn(libc::c_int) as usize;
            libc::sigemptyset(&raw mut action.sa_mask);
            // Without SA_RESTART: whoever waits is woken.
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

/// The signal that came, if any.
#[must_use]
pub fn seen() -> Option<i32> {
    Some(SEEN.load(Ordering::SeqCst)).filter(|signal| *signal != 0)
}

/// The exit code that an interrupted program ends with (130 for Ctrl-C), if it was interrupted.
#[must_use]
pub fn interrupted() -> Option<u8> {
    seen()
        .and_then(|signal| u8::try_from(signal).ok())
        .map(|signal| 128 + signal)
}
