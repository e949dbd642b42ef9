//! What runs the guests: the processor's virtualisation where a real guest was
//! seen to boot with it, QEMU's emulation otherwise. A device file that opens
//! proves nothing: on nested machines guests may hang or QEMU may abort.

use crate::beside::beside;
use crate::error::Error;
use crate::image::{Image, System};
use crate::machine::{self, Accel, Machine, Memory, Start};
use crate::process;
use crate::settings::AccelChoice;
use crate::vmdir::{CONSOLE_FILE, LOG_FILE};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use thiao_guest::protocol::HELLO;

/// What was found out about this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// What it holds for: kernel, emulator, processor, and whether this user may open `/dev/kvm`.
    key: String,
    pub accel: Accel,
    /// Why it is that, for people.
    pub why: String,
    /// The time stamp counter, in kHz.
    pub tsc_khz: u64,
}

/// Where it is remembered, in the cache.
const CHOICE_FILE: &str = "acceleration.json";

/// How long a guest may take to say hello with KVM; a good one takes under a second.
const TRIAL_LIMIT: Duration = Duration::from_secs(5);

/// How far apart two measurements of the counter may be before the newer one
/// counts: 200 parts per million. A remembered figure keeps templates valid.
const TSC_TOLERANCE: u64 = 5000;

/// The remembered verdict, or a new one. The flag says whether it is new.
pub fn judge(cache: &Path, image: &Image, choice: AccelChoice) -> Result<(Choice, bool), Error> {
    let device = open_kvm();
    let seen = device
        .as_ref()
        .map_or_else(String::clone, |()| "/dev/kvm opens".to_owned());
    let key = format!("{} | {} | {} | {seen}", kernel(), emulator()?, processor());
    let tsc_khz = measure_tsc();
    let file = cache.join(CHOICE_FILE);
    let remembered = remembered(cache).filter(|choice| choice.key == key);
    let tsc_khz = match &remembered {
        Some(old) if old.tsc_khz.abs_diff(tsc_khz) <= tsc_khz / TSC_TOLERANCE => old.tsc_khz,
        _ => tsc_khz,
    };
    let verdict = match (choice, &remembered) {
        (AccelChoice::Kvm, _) => Choice {
            key,
            accel: Accel::Kvm,
            why: "configured".into(),
            tsc_khz,
        },
        (AccelChoice::Tcg, _) => Choice {
            key,
            accel: Accel::Tcg,
            why: "configured".into(),
            tsc_khz,
        },
        (AccelChoice::Auto, Some(old)) if old.why != "configured" => Choice {
            tsc_khz,
            ..old.clone()
        },
        (AccelChoice::Auto, _) => {
            let (accel, why) = match device.and_then(|()| try_kvm(cache, image, tsc_khz)) {
                Ok(took) => (
                    Accel::Kvm,
                    format!("a guest booted with KVM in {:.1} s", took.as_secs_f32()),
                ),
                Err(why) => (Accel::Tcg, format!("KVM is not usable: {why}")),
            };
            Choice {
                key,
                accel,
                why,
                tsc_khz,
            }
        }
    };
    let new = remembered.as_ref() != Some(&verdict);
    if new {
        let text = serde_json::to_vec_pretty(&verdict).map_err(|e| Error::io("write", &file, e.into()))?;
        let fresh = beside(&file, "new");
        fs::write(&fresh, text)
            .and_then(|()| fs::rename(&fresh, &file))
            .map_err(|e| Error::io("write", &file, e))?;
    }
    Ok((verdict, new))
}

/// What was found out before, in this cache.
pub fn remembered(cache: &Path) -> Option<Choice> {
    serde_json::from_slice(&fs::read(cache.join(CHOICE_FILE)).ok()?).ok()
}

fn open_kvm() -> Result<(), String> {
    let opened = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    opened.map(drop).map_err(|e| format!("/dev/kvm: {e}"))
}

/// Boots the real image with KVM, in a folder of its own, for a limited time.
fn try_kvm(cache: &Path, image: &Image, tsc_khz: u64) -> Result<Duration, String> {
    let folder = beside(&cache.join("kvm"), "trial");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
    let outcome = trial(&folder, image, tsc_khz);
    let _ = fs::remove_dir_all(&folder);
    outcome
}

fn trial(folder: &Path, image: &Image, tsc_khz: u64) -> Result<Duration, String> {
    let machine = Machine {
        name: "thiao-trial".into(),
        cpus: 1,
        memory_mb: 256,
        accel: Accel::Kvm,
        tsc_khz,
        memory: Memory::Private,
        start: Start::Hello,
        mac: [0; 6],
        tap: None,
    };
    let started = Instant::now();
    let mut child = process::foreground(folder, 0)
        .map_err(|e| e.to_string())?
        .args(machine.arguments(&System::Made(image.clone()), folder))
        .spawn()
        .map_err(|e| e.to_string())?;
    let said_hello =
        || fs::read(folder.join(CONSOLE_FILE)).is_ok_and(|b| String::from_utf8_lossy(&b).contains(HELLO));
    let ended = loop {
        if said_hello() {
            break Ok(started.elapsed());
        }
        match child.try_wait() {
            Ok(Some(_)) if said_hello() => break Ok(started.elapsed()),
            Ok(Some(status)) => {
                let words = process::tail(&folder.join(LOG_FILE));
                // The first line says what was wrong, an assertion's own the place in QEMU.
                let first = words.split(" | ").next().unwrap_or_default();
                break Err(format!("QEMU ended ({status}): {first}"));
            }
            Ok(None) if started.elapsed() < TRIAL_LIMIT => std::thread::sleep(Duration::from_millis(20)),
            Ok(None) => break Err(format!("a guest did not boot within {} s", TRIAL_LIMIT.as_secs())),
            Err(e) => break Err(e.to_string()),
        }
    };
    let _ = child.kill();
    let _ = child.wait();
    ended
}

fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The emulator's first line about itself.
pub fn emulator() -> Result<String, Error> {
    let out = Command::new(machine::PROGRAM)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| {
            Error::Refused(format!(
                "cannot run {}: {e}; install the Debian package qemu-system-x86",
                machine::PROGRAM
            ))
        })?;
    Ok(String::from_utf8_lossy(&out.stdout)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned())
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    format!(
        "{} {}",
        field("model name").unwrap_or_default(),
        field("microcode").unwrap_or_default()
    )
}

/// The counter's rate in kHz: the emulated counter is the real one, and the
/// guest's kernel cannot calibrate it. What counts is that counter and clock
/// are read at the same instant, however busy the machine is.
#[cfg(target_arch = "x86_64")]
fn measure_tsc() -> u64 {
    let (from, start) = read_together();
    std::thread::sleep(Duration::from_millis(100));
    let (to, end) = read_together();
    let nanos = end.duration_since(start).as_nanos().max(1);
    (u128::from(to.saturating_sub(from)) * 1_000_000 / nanos) as u64
}

/// The counter and the clock: of many readings the one that took the shortest, which nothing interrupted.
#[cfg(target_arch = "x86_64")]
fn read_together() -> (u64, Instant) {
    // SAFETY: every x86-64 processor has the instruction.
    let counter = || unsafe { core::arch::x86_64::_rdtsc() };
    let mut best = (u64::MAX, 0, Instant::now());
    for _ in 0..50 {
        let before = counter();
        let now = Instant::now();
        let took = counter().saturating_sub(before);
        if took < best.0 {
            best = (took, before + took / 2, now);
        }
    }
    (best.1, best.2)
}

/// Elsewhere no guest is started: [`image::prepare`] refuses.
#[cfg(not(target_arch = "x86_64"))]
fn measure_tsc() -> u64 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_measured_within_its_tolerance() {
        let (a, b) = (measure_tsc(), measure_tsc());
        assert!(a > 100_000, "{a} kHz");
        assert!(a.abs_diff(b) < a / TSC_TOLERANCE, "{a} and {b} kHz");
    }
}
