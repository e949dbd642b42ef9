//! `thiao console`: a person at the console of a VM of the embedded provider, of whom nobody asks a
//! password. Who may: whoever the kernel lets into the VM's folder, which is root and the controller's user.

use anyhow::{Context as _, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use thiao_core::ids::VmId;

/// What leads out: Ctrl-], as with telnet and virsh.
const WAY_OUT: u8 = 0x1d;

pub(super) fn run(file: Option<&Path>, id: &VmId) -> anyhow::Result<()> {
    let state_dir = thiao_config::state_dir(file)?;
    let stream = match thiao_qemu::console(&state_dir, id) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            bail!("only root and the controller's user may enter a VM's console: use sudo")
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
            "there is no VM {id} on this machine (`thiao vms` lists them); of VMs of OpenNebula, its own console is \
             the way in"
        ),
        stream => stream.with_context(|| format!("the console of {id} cannot be entered"))?,
    };
    thiao_cli::tell!("at the console of {id}; Ctrl-] leaves it");
    let _terminal = Raw::take();
    talk(stream)
}

/// Passes everything on in both directions, until either end is over or the way out was typed.
fn talk(mut vm: UnixStream) -> anyhow::Result<()> {
    let (stdin, mut stdout) = (io::stdin(), io::stdout());
    let mut listens = true;
    // What a person sees when he comes in: the prompt once more.
    vm.write_all(b"\r")?;
    loop {
        let mut fds = vec![PollFd::from_borrowed_fd(vm.as_fd(), PollFlags::IN)];
        if listens {
            fds.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            done => done?,
        };
        let (said, typed) = (
            !fds[0].revents().is_empty(),
            fds.get(1).is_some_and(|fd| !fd.revents().is_empty()),
        );
        let mut chunk = [0; 4096];
        if said {
            match vm.read(&mut chunk)? {
                0 => return Ok(()),
                length => stdout.write_all(&chunk[..length]).and_then(|()| stdout.flush())?,
            }
        }
        if typed {
            let length = rustix::io::read(&stdin, &mut chunk)?;
            let words = before_way_out(&chunk[..length]);
            vm.write_all(words)?;
            if words.len() < length {
                return Ok(());
            }
            // A pipe that has ended: what it has asked for is still answered, until the VM ends.
            listens = length > 0;
        }
    }
}

fn before_way_out(typed: &[u8]) -> &[u8] {
    typed.split(|byte| *byte == WAY_OUT).next().unwrap_or_default()
}

/// A terminal that passes each key on at once; it is given back as it was.
struct Raw(Option<Termios>);

impl Raw {
    fn take() -> Self {
        let stdin = io::stdin();
        if !isatty(&stdin) {
            return Self(None);
        }
        let before = tcgetattr(&stdin).ok();
        if let Some(mut raw) = before.clone() {
            raw.make_raw();
            let _ = tcsetattr(&stdin, OptionalActions::Now, &raw);
        }
        Self(before)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_before_the_way_out_is_passed_on() {
        assert_eq!(before_way_out(b"ls\r"), b"ls\r");
        assert_eq!(before_way_out(b"ls\r\x1dx"), b"ls\r");
        assert_eq!(before_way_out(b"\x1d"), b"");
    }
}
