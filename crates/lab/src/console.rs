//! What a person types at OpenNebula's console, in a lab that has one: `onevm`, `onehost` and `onetemplate`
//! with the words of OpenNebula's own tools, as far as they are what people do to VMs. As oneadmin.

use crate::layout::Layout;
use crate::oned;
use crate::plan::Plan;
use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use thiao_cli::{exit, say};
use thiao_opennebula::model::Devices;
use thiao_opennebula::read;
use thiao_opennebula::wire::{self, Answer, Arg, Malformed, Value};

/// The tools; in a lab these are links to this program.
pub const TOOLS: [&str; 3] = ["onevm", "onehost", "onetemplate"];

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Do to VMs what people do
#[derive(Debug, Parser)]
#[command(name = "onevm", disable_help_subcommand = true)]
struct OneVm {
    #[command(subcommand)]
    command: VmCommand,
}

#[derive(Debug, Subcommand)]
enum VmCommand {
    /// Show every VM of every user
    List,
    /// Save a VM on its host
    Suspend { vm: i32 },
    /// Save a VM and take it off its host
    Stop { vm: i32 },
    /// Let one go on that was saved, stopped or switched off
    Resume { vm: i32 },
    /// Keep one that waits from starting
    Hold { vm: i32 },
    /// Let one start that was held
    Release { vm: i32 },
    /// Switch a VM off
    Poweroff(Ending),
    /// Switch a VM off and take it off its host
    Undeploy(Ending),
    /// End a VM for good
    Terminate(Ending),
    /// Restart a VM's guest
    Reboot(Ending),
    /// Move a VM to another host
    Migrate {
        /// Its guest does not stop for it
        #[arg(long)]
        live: bool,
        vm: i32,
        host: String,
    },
    /// Give a VM another size
    Resize {
        vm: i32,
        #[arg(long, value_name = "CORES")]
        cpu: Option<f32>,
        #[arg(long, value_name = "N")]
        vcpu: Option<u32>,
        #[arg(long, value_name = "MIB")]
        memory: Option<u64>,
    },
    /// Give a VM another name
    Rename { vm: i32, name: String },
    /// Keep everybody but oneadmin from changing a VM
    Lock { vm: i32 },
    /// Let everybody change it again
    Unlock { vm: i32 },
    /// Give a VM to another user
    Chown {
        vm: i32,
        user: String,
        group: Option<String>,
    },
}

#[derive(Debug, Args)]
struct Ending {
    /// Without leaving its guest time
    #[arg(long)]
    hard: bool,
    vm: i32,
}

/// Say which hosts take VMs
#[derive(Debug, Parser)]
#[command(name = "onehost", disable_help_subcommand = true)]
struct OneHost {
    #[command(subcommand)]
    command: HostCommand,
}

#[derive(Debug, Subcommand)]
enum HostCommand {
    /// Show all hosts and their states
    List,
    /// The scheduler passes it by
    Disable { host: String },
    /// It takes no VM
    Offline { host: String },
    /// It takes VMs again
    Enable { host: String },
}

/// Change what VMs are made from
#[derive(Debug, Parser)]
#[command(name = "onetemplate", disable_help_subcommand = true)]
struct OneTemplate {
    #[command(subcommand)]
    command: TemplateCommand,
}

#[derive(Debug, Subcommand)]
enum TemplateCommand {
    /// Show all templates by id and name
    List,
    /// Say who may use it: 600 its owner, 604 everybody
    Chmod { template: String, mode: String },
}

/// Runs one of the tools, if the program was called by its name.
pub fn called(args: &[OsString]) -> Option<ExitCode> {
    let name = Path::new(args.first()?).file_name()?.to_str()?;
    TOOLS.contains(&name).then(|| {
        let args = args.to_vec();
        let typed = match name {
            "onevm" => exit::parse(args).map(|OneVm { command }| Typed::Vm(command)),
            "onehost" => exit::parse(args).map(|OneHost { command }| Typed::Host(command)),
            _ => exit::parse(args).map(|OneTemplate { command }| Typed::Template(command)),
        };
        match typed {
            Ok(typed) => exit::ended(run(&typed), |_| None),
            Err(code) => code,
        }
    })
}

enum Typed {
    Vm(VmCommand),
    Host(HostCommand),
    Template(TemplateCommand),
}

fn run(typed: &Typed) -> Result<ExitCode> {
    let console = Console::open()?;
    match typed {
        Typed::Vm(command) => console.vm(command)?,
        Typed::Host(command) => console.host(command)?,
        Typed::Template(command) => console.template(command)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// oneadmin at the lab's front-end.
struct Console {
    address: SocketAddr,
    session: String,
}

impl Console {
    /// Of the lab that this process is in.
    fn open() -> Result<Self> {
        let lab = std::env::var_os(thiao_config::LAB_VARIABLE).map(PathBuf::from);
        let lab = lab.context("this is no lab: try `thiao lab exec --admin onevm list`")?;
        let layout = Layout::new(Some(&lab))?;
        let plan = Plan::read(&layout)?;
        if !plan.options.opennebula {
            bail!("this lab has no OpenNebula: start one with `thiao lab up --opennebula`");
        }
        Ok(Self {
            address: oned::address(&plan),
            session: oned::administrator(&layout)?,
        })
    }

    fn vm(&self, command: &VmCommand) -> Result<()> {
        let act = |word: &str, vm: i32| self.act("one.vm.action", &[Arg::Text(word), Arg::Int(vm)]);
        let end = |word: &str, Ending { hard, vm }: &Ending| match hard {
            true => act(&format!("{word}-hard"), *vm),
            false => act(word, *vm),
        };
        match command {
            VmCommand::List => self.list_vms(),
            VmCommand::Suspend { vm } => act("suspend", *vm),
            VmCommand::Stop { vm } => act("stop", *vm),
            VmCommand::Resume { vm } => act("resume", *vm),
            VmCommand::Hold { vm } => act("hold", *vm),
            VmCommand::Release { vm } => act("release", *vm),
            VmCommand::Poweroff(ending) => end("poweroff", ending),
            VmCommand::Undeploy(ending) => end("undeploy", ending),
            VmCommand::Terminate(ending) => end("terminate", ending),
            VmCommand::Reboot(ending) => end("reboot", ending),
            VmCommand::Migrate { live, vm, host } => {
                let host = self.host_id(host)?;
                let rest = [Arg::Int(*vm), Arg::Int(host), Arg::Bool(*live), Arg::Bool(false)];
                self.act("one.vm.migrate", &rest)
            }
            VmCommand::Resize {
                vm,
                cpu,
                vcpu,
                memory,
            } => {
                let sizes = [
                    cpu.map(|cpu| format!("CPU=\"{cpu}\"\n")),
                    vcpu.map(|vcpu| format!("VCPU=\"{vcpu}\"\n")),
                    memory.map(|memory| format!("MEMORY=\"{memory}\"\n")),
                ];
                let text: String = sizes.into_iter().flatten().collect();
                self.act(
                    "one.vm.resize",
                    &[Arg::Int(*vm), Arg::Text(&text), Arg::Bool(true)],
                )
            }
            VmCommand::Rename { vm, name } => self.act("one.vm.rename", &[Arg::Int(*vm), Arg::Text(name)]),
            // That of `onevm lock` without a level: USE.
            VmCommand::Lock { vm } => {
                self.act("one.vm.lock", &[Arg::Int(*vm), Arg::Int(1), Arg::Bool(false)])
            }
            VmCommand::Unlock { vm } => self.act("one.vm.unlock", &[Arg::Int(*vm)]),
            VmCommand::Chown { vm, user, group } => {
                let user = self.user_id(user)?;
                let group = group.as_deref().map_or(Ok(-1), |group| self.group_id(group))?;
                self.act("one.vm.chown", &[Arg::Int(*vm), Arg::Int(user), Arg::Int(group)])
            }
        }
    }

    fn host(&self, command: &HostCommand) -> Result<()> {
        let (host, status) = match command {
            HostCommand::List => {
                for host in self.hosts()? {
                    say!("{:>4} {:<12} {}", host.id, host.name, host.state);
                }
                return Ok(());
            }
            HostCommand::Enable { host } => (host, 0),
            HostCommand::Disable { host } => (host, 1),
            HostCommand::Offline { host } => (host, 2),
        };
        let host = self.host_id(host)?;
        self.act("one.host.status", &[Arg::Int(host), Arg::Int(status)])
    }

    fn template(&self, command: &TemplateCommand) -> Result<()> {
        match command {
            TemplateCommand::List => {
                for template in self.templates()? {
                    say!("{:>4} {}", template.id, template.name);
                }
                Ok(())
            }
            TemplateCommand::Chmod { template, mode } => {
                let rights = rights(mode)?;
                let found = self.templates()?.into_iter().find(|one| one.name == *template);
                let found = found.with_context(|| format!("there is no template {template}"))?;
                let mut args = vec![Arg::Int(id(found.id)?)];
                args.extend(rights.map(Arg::Int));
                self.act("one.template.chmod", &args)
            }
        }
    }

    fn list_vms(&self) -> Result<()> {
        let all = [Arg::Int(-2), Arg::Int(-1), Arg::Int(-1), Arg::Int(-1)];
        for vm in self.read("one.vmpool.infoextended", &all, read::vm_details)? {
            let (row, (_, owner)) = (vm.row, vm.owner);
            let host = row.host.map(|(name, _)| name).unwrap_or_default();
            say!(
                "{:>4} {owner:<9} {:<24} {:<16} {host}",
                row.id,
                row.name,
                row.state.to_string()
            );
        }
        Ok(())
    }

    fn hosts(&self) -> Result<Vec<thiao_opennebula::model::Host>> {
        self.read("one.hostpool.info", &[], |xml| read::hosts(xml, Devices::Left))
    }

    fn templates(&self) -> Result<Vec<thiao_opennebula::model::Template>> {
        let all = [Arg::Int(-2), Arg::Int(-1), Arg::Int(-1)];
        self.read("one.templatepool.info", &all, read::templates)
    }

    fn host_id(&self, name: &str) -> Result<i32> {
        let found = self.hosts()?.into_iter().find(|host| host.name == name);
        id(found.with_context(|| format!("there is no host {name}"))?.id)
    }

    fn user_id(&self, name: &str) -> Result<i32> {
        let all = self.read("one.userpool.info", &[], read::accounts)?;
        let found = all.into_iter().find(|user| user.name == name);
        id(found.with_context(|| format!("there is no user {name}"))?.id)
    }

    fn group_id(&self, name: &str) -> Result<i32> {
        let all = self.read("one.grouppool.info", &[], read::circles)?;
        let found = all.into_iter().find(|group| group.name == name);
        id(found.with_context(|| format!("there is no group {name}"))?.id)
    }

    fn act(&self, method: &str, args: &[Arg<'_>]) -> Result<()> {
        self.call(method, args).map(drop)
    }

    fn read<T>(
        &self,
        method: &str,
        args: &[Arg<'_>],
        read: impl FnOnce(&str) -> Result<T, Malformed>,
    ) -> Result<T> {
        match self.call(method, args)? {
            Value::Text(text) => read(&text).with_context(|| format!("the answer to {method}")),
            other => bail!("{method} gives {other:?}"),
        }
    }

    fn call(&self, method: &str, args: &[Arg<'_>]) -> Result<Value> {
        let all: Vec<Arg<'_>> = [Arg::Text(&self.session)]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        let body = wire::call(method, &all)?;
        let answer = post(self.address, &body)
            .with_context(|| format!("the lab's OpenNebula at {} does not answer", self.address))?;
        match wire::answer(&answer).with_context(|| format!("the answer to {method}"))? {
            Answer::Done(value) => Ok(value),
            Answer::Refused { message, .. } | Answer::Fault { message, .. } => bail!(message),
        }
    }
}

/// The body of the answer. oned closes the connection behind it.
fn post(address: SocketAddr, body: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let length = body.len();
    write!(
        stream,
        "POST /RPC2 HTTP/1.1\r\nHost: {address}\r\nContent-Type: text/xml\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
    Ok(head.map_or(answer.clone(), |head| answer.split_off(head + 4)))
}

fn id(id: u32) -> Result<i32> {
    i32::try_from(id).with_context(|| format!("{id} is no id"))
}

/// What `chmod` of OpenNebula is told for a mode such as `640`: of owner, group and others whether each may use,
/// manage and administer it.
fn rights(mode: &str) -> Result<[i32; 9]> {
    let digits: Option<Vec<u32>> = mode.chars().map(|digit| digit.to_digit(8)).collect();
    let Some([owner, group, others]) = digits
        .as_deref()
        .and_then(|digits| digits.first_chunk::<3>())
        .copied()
    else {
        bail!("{mode} is no mode such as 604")
    };
    let bit = |digit: u32, weight: u32| i32::from(digit & weight != 0);
    let mut rights = [0; 9];
    let wanted = [owner, group, others]
        .into_iter()
        .flat_map(|digit| [4, 2, 1].map(|weight| bit(digit, weight)));
    for (right, bit) in rights.iter_mut().zip(wanted) {
        *right = bit;
    }
    Ok(rights)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_as_opennebula_reads_them() {
        assert_eq!(rights("604").unwrap(), [1, 1, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(rights("751").unwrap(), [1, 1, 1, 1, 0, 1, 0, 0, 1]);
        assert!(rights("6").is_err() && rights("68x").is_err());
    }

    #[test]
    fn only_the_tools_names_are_the_tools() {
        assert!(called(&["thiao-lab".into(), "onevm".into()]).is_none());
        assert!(called(&[]).is_none());
    }

    #[test]
    fn what_people_type_is_understood() {
        for line in [
            "onevm migrate --live 3 host2",
            "onevm poweroff --hard 3",
            "onevm chown 3 ada users",
        ] {
            assert!(OneVm::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        assert!(OneHost::try_parse_from(["onehost", "disable", "host1"]).is_ok());
        assert!(OneTemplate::try_parse_from(["onetemplate", "chmod", "worker", "600"]).is_ok());
    }
}
