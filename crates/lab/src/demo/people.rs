//! A person's mischief: what somebody at OpenNebula's console does to VMs under running jobs. For each it is shown
//! how soon Thiao tells of it and what it says, and what becomes of the job and the node.

use super::checks::{Check, check};
use super::follow::{Early, JOBS_LIMIT, begin, follow, submit, until_back, until_over};
use super::jobs::{self, NewJob, Runs};
use super::show::Show;
use super::track::{Story, Track};
use crate::api;
use crate::enter::{As, Running};
use crate::oned::{ADMINISTRATOR, TEMPLATE, USER};
use crate::plan::{JobSize, Options};
use anyhow::{Context, Result, bail};
use std::time::{Duration, Instant};
use thiao_api::types::{Event, Vm};
use thiao_api::words::VmState;

/// How soon everything is to be told.
const TOLD_WITHIN: Duration = Duration::from_secs(15);

/// How long is looked whether something stays as it is.
const LOOK: Duration = Duration::from_secs(3);

/// How wrong a guest's clock may be when it goes on, in milliseconds.
const CLOCK_MS: u64 = 2000;

/// What jobs are called by what happens to their VMs.
const STAYS: &str = "stays";
const OFF: &str = "off";
const ENDED: &str = "ended";
const UNDEPLOYED: &str = "undeploy";
const LOCKED: &str = "locked";
const LATE: &str = "late";

/// Nodes that the jobs want at once, with those on which they start again.
const NODES: u32 = 8;

/// Whether such a lab can show it.
pub fn possible(options: &Options) -> Result<()> {
    if !options.opennebula || options.hosts < 2 {
        bail!("the person of --people is at OpenNebula's console, and has two hosts: add --opennebula");
    }
    if options.nodes < NODES || options.job_nodes < 1 {
        bail!("the demo's jobs need {NODES} nodes, and one of job mode: --nodes {NODES} or more");
    }
    Ok(())
}

/// One after the other.
pub fn run(lab: &Running, show: &mut Show, stories: &mut Vec<Story>) -> Result<bool, Early> {
    let mut person = Person {
        story: begin(lab),
        lab,
        show,
        checks: Vec::new(),
        typed: String::new(),
        at: 0,
        last: 0,
        boots: Vec::new(),
    };
    person.jobs_run()?;
    for (job, command, words) in [
        (OFF, "poweroff --hard", "powered off in OpenNebula"),
        (ENDED, "terminate --hard", "terminated in OpenNebula"),
        (
            UNDEPLOYED,
            "undeploy",
            "is being shut down, and Thiao did not ask for it",
        ),
    ] {
        person.loses(job, command, words)?;
    }
    person.renames_and_moves()?;
    person.gives_away()?;
    person.suspends()?;
    person.stops_and_holds()?;
    person.locks()?;
    person.closes_the_template()?;
    let (story, checks) = person.ends()?;
    stories.push(story);
    Ok(show.checks(&checks))
}

/// A person at the console, and what came of it so far.
struct Person<'a> {
    lab: &'a Running,
    show: &'a mut Show,
    story: Story,
    checks: Vec<Check>,
    /// What was typed last.
    typed: String,
    /// When, in milliseconds since the epoch.
    at: u64,
    /// The last event before that.
    last: i64,
    /// Jobs that lost their VM, with the boot id of that.
    boots: Vec<(&'static str, String)>,
}

impl Person<'_> {
    /// Submits the jobs, and waits until all of them run.
    fn jobs_run(&mut self) -> Result<(), Early> {
        let small = JobSize {
            cpus: 1,
            memory_mb: 150,
        };
        for (name, size) in [
            (STAYS, None),
            (OFF, None),
            (ENDED, None),
            (UNDEPLOYED, None),
            (LOCKED, Some(small)),
        ] {
            self.submit(name, size)?;
        }
        let lab = self.lab;
        let all = self.wait(JOBS_LIMIT, |story| {
            let ticks = |track: &Track| track.state == "RUNNING" && jobs::tick(lab, &track.job).is_some();
            story.tracks.iter().all(ticks)
        })?;
        if !all {
            return Err(anyhow::anyhow!("the jobs do not run after {} s", JOBS_LIMIT.as_secs()).into());
        }
        Ok(())
    }

    fn submit(&mut self, name: &'static str, size: Option<JobSize>) -> Result<()> {
        let wanted = NewJob {
            user: self.lab.plan.submitter(),
            program: "sbatch",
            name,
            nodes: 1,
            size,
            array: 0,
            runs: Runs::Stays,
        };
        submit(self.lab, &mut self.story, self.show, &wanted)
    }

    /// What takes a job its VM: Slurm hears of it, and starts the job again.
    fn loses(&mut self, job: &'static str, command: &str, words: &str) -> Result<(), Early> {
        let (node, vm) = self.vm_of(job)?;
        self.boots.push((job, self.boot(job)?));
        self.types(&format!("onevm {command} {}", vm.id))?;
        self.told(&node, words)?;
        let down = |event: &Event| event.kind == "node-down" && event.subject == format!("node {node}");
        let found = self.event(down)?;
        let wrong = found.is_none().then(|| format!("{node} was not set DOWN"));
        self.check("Slurm is told that the node is DOWN, and why", wrong);
        self.explained(&node)
    }

    fn renames_and_moves(&mut self) -> Result<(), Early> {
        let (node, vm) = self.vm_of(STAYS)?;
        self.types(&format!("onevm rename {} mine", vm.id))?;
        let of_it = |event: &Event| event.subject.starts_with(&format!("vm {node}."));
        let told = self.within(LOOK, of_it)?;
        let wrong = told.map(|event| format!("an event {}: {}", event.kind, event.message));
        self.check("Thiao does not mind", wrong);
        self.goes_on()?;

        let here = vm.host.unwrap_or_default();
        let there = self.lab.plan.host_names().find(|host| *host != here);
        let there = there.context("there is no other host")?;
        self.types(&format!("onevm migrate --live {} {there}", vm.id))?;
        self.told(&node, &format!("moved from host {here} to host {there}"))?;
        self.shown(&node, &format!("on {there}"), |vm| {
            vm.host.as_deref() == Some(&there)
        })?;
        self.goes_on()
    }

    fn gives_away(&mut self) -> Result<(), Early> {
        let (node, vm) = self.vm_of(STAYS)?;
        self.types(&format!("onevm chown {} {ADMINISTRATOR}", vm.id))?;
        self.told(
            &node,
            &format!("belongs to OpenNebula's user {ADMINISTRATOR} now"),
        )?;
        self.noted(&node, "left alone")?;
        self.goes_on()?;
        self.types(&format!("onevm chown {} {USER}", vm.id))?;
        self.told(&node, "goes on")?;
        // With its group: Thiao may not see it then.
        self.types(&format!("onevm chown {0} {ADMINISTRATOR} {ADMINISTRATOR}", vm.id))?;
        self.told(&node, "whose VMs Thiao may not see")?;
        self.noted(&node, "left alone")?;
        self.goes_on()?;
        self.types(&format!("onevm chown {} {USER} users", vm.id))?;
        self.told(&node, "goes on")
    }

    fn suspends(&mut self) -> Result<(), Early> {
        let (node, vm) = self.vm_of(STAYS)?;
        self.types(&format!("onevm suspend {}", vm.id))?;
        self.told(&node, "is saved to a disk and does not run")?;
        self.shown(&node, "as saved", |vm| vm.state == VmState::Saved)?;
        self.stands_still()?;
        self.types(&format!("onevm resume {}", vm.id))?;
        self.told(&node, "goes on")?;
        self.goes_on()?;
        self.clock_is_right()
    }

    /// Stopped, and then kept from starting in three ways.
    fn stops_and_holds(&mut self) -> Result<(), Early> {
        let (node, vm) = self.vm_of(STAYS)?;
        self.types(&format!("onevm stop {}", vm.id))?;
        self.told(&node, "is saved to a disk and does not run")?;
        self.stands_still()?;
        let hosts: Vec<String> = self.lab.plan.host_names().collect();
        for (host, word) in hosts.iter().zip(["disable", "offline"].into_iter().cycle()) {
            self.types(&format!("onehost {word} {host}"))?;
            self.host_told(host, "takes no new VMs")?;
        }
        self.types(&format!("onevm resume {}", vm.id))?;
        self.types(&format!("onevm hold {}", vm.id))?;
        self.told(&node, "is held back by somebody")?;
        self.noted(&node, "is held back by somebody")?;
        self.types(&format!("onevm release {}", vm.id))?;
        self.stands_still()?;
        for host in &hosts {
            self.types(&format!("onehost enable {host}"))?;
            self.host_told(host, "takes new VMs again")?;
        }
        self.goes_on()?;
        self.clock_is_right()
    }

    /// A VM whose job is over cannot be ended while somebody has locked it.
    fn locks(&mut self) -> Result<(), Early> {
        let (node, vm) = self.vm_of(LOCKED)?;
        self.types(&format!("onevm lock {}", vm.id))?;
        let lab = self.lab;
        let Some(track) = self
            .story
            .tracks
            .iter_mut()
            .find(|track| track.job.name == LOCKED)
        else {
            return Ok(());
        };
        track.cancelled = true;
        let (user, label) = (&track.job.user, track.job.label());
        self.show.say(&format!("{} types: scancel {label}", user.name));
        let mut program = lab.command("scancel", As::User(user), &lab.home(user))?;
        succeeds("scancel", program.arg(&label))?;
        self.at = jobs::now();
        self.told(&node, "unlock it (onevm unlock ID)")?;
        self.explained(&node)?;
        self.types(&format!("onevm unlock {}", vm.id))?;
        self.told(&node, "gone: ")
    }

    /// New VMs cannot be made for a while.
    fn closes_the_template(&mut self) -> Result<(), Early> {
        self.types(&format!("onetemplate chmod {TEMPLATE} 600"))?;
        self.submit(LATE, None)?;
        let refused = |event: &Event| event.message.contains(TEMPLATE) && event.subject.starts_with("node ");
        let found = self.event(refused)?;
        let told = found
            .as_ref()
            .map(|event| format!("{}: {}", event.subject, event.message));
        self.show.more(&told.unwrap_or_default());
        let wrong = found.is_none().then(|| "it was not told".to_owned());
        self.check("a new VM cannot be made, and an event says why", wrong);
        self.types(&format!("onetemplate chmod {TEMPLATE} 604"))
    }

    /// Lets the jobs end, and looks what became of all of them and of the nodes.
    fn ends(mut self) -> Result<(Story, Vec<Check>), Early> {
        self.show.say("all jobs may end now");
        jobs::gather(self.lab)?;
        until_over(self.lab, &mut self.story, self.show)?;
        let back = until_back(self.lab, &mut self.story, self.show)?;
        let restarts = |track: &Track| track.output.proofs.get(&0)?.number("restarts");
        let boots = &self.boots;
        let fate = |track: &Track| match boots.iter().find(|(name, _)| *name == track.job.name) {
            Some((_, before)) => {
                let boot = track.output.proofs.get(&0).map_or("", |proof| proof.text("boot"));
                let again =
                    restarts(track).is_some_and(|times| times > 0) && boot != before && !boot.is_empty();
                (!again).then(|| format!("restarts: {:?}, boot id {boot}", restarts(track)))
            }
            None if track.job.name == STAYS => {
                (restarts(track) != Some(0)).then(|| format!("restarts: {:?}", restarts(track)))
            }
            None => None,
        };
        self.checks
            .push(check("every job completed", &self.story, |track| {
                (track.state != "COMPLETED").then(|| format!("state {}", track.state))
            }));
        self.checks.push(check(
            "jobs whose VM was taken ran again in another; the one whose VM was saved, moved and given away was \
             never started again",
            &self.story,
            fate,
        ));
        self.checks.extend(back);
        Ok((self.story, self.checks))
    }
}

/// What is looked at, and how it is judged.
impl Person<'_> {
    /// Types a command of OpenNebula's.
    fn types(&mut self, command: &str) -> Result<(), Early> {
        let seen = api::events(&self.lab.layout.api(), self.last).unwrap_or_default();
        self.last = seen
            .iter()
            .map(|event| event.id)
            .max()
            .unwrap_or(0)
            .max(self.last);
        self.show.say(&format!("{ADMINISTRATOR} types: {command}"));
        self.typed = command.to_owned();
        self.at = jobs::now();
        let mut words = command.split(' ');
        let tool = words.next().unwrap_or_default();
        let mut program = self.lab.command(tool, As::Owner, self.lab.layout.dir())?;
        succeeds(command, program.args(words))?;
        Ok(())
    }

    fn check(&mut self, what: &str, wrong: Option<String>) {
        self.checks.push(Check {
            what: format!("{}: {what}", self.typed),
            wrong,
        });
    }

    /// Follows until something is so; whether it was in time.
    fn wait(&mut self, limit: Duration, mut is_so: impl FnMut(&Story) -> bool) -> Result<bool, Early> {
        let deadline = Instant::now() + limit;
        let mut so = false;
        follow(self.lab, &mut self.story, self.show, |story| {
            so = is_so(story);
            Ok(so || Instant::now() > deadline)
        })?;
        Ok(so)
    }

    /// The first such event after the last command, in time.
    fn event(&mut self, is_it: impl Fn(&Event) -> bool) -> Result<Option<Event>, Early> {
        self.within(TOLD_WITHIN, is_it)
    }

    fn within(&mut self, limit: Duration, is_it: impl Fn(&Event) -> bool) -> Result<Option<Event>, Early> {
        let (lab, last) = (self.lab, self.last);
        let mut found = None;
        self.wait(limit, |_| {
            let events = api::events(&lab.layout.api(), last).unwrap_or_default();
            found = events.into_iter().find(&is_it);
            found.is_some()
        })?;
        Ok(found)
    }

    /// Whether this is told of the node's VM in time.
    fn told(&mut self, node: &str, words: &str) -> Result<(), Early> {
        let vm = format!("vm {node}.");
        self.told_of(&vm, words)
    }

    fn host_told(&mut self, host: &str, words: &str) -> Result<(), Early> {
        self.told_of(&format!("host {host}"), words)
    }

    fn told_of(&mut self, subject: &str, words: &str) -> Result<(), Early> {
        let found =
            self.event(|event| event.subject.starts_with(subject) && event.message.contains(words))?;
        let Some(event) = found else {
            let limit = TOLD_WITHIN.as_secs();
            self.check("an event tells it", Some(format!("not within {limit} s")));
            return Ok(());
        };
        let after = event.at.saturating_sub(self.at);
        let seconds = format!("{}.{:02} s", after / 1000, after % 1000 / 10);
        self.show.more(&format!(
            "told after {seconds}: {} {}",
            event.subject, event.message
        ));
        let late = u128::from(after) > TOLD_WITHIN.as_millis();
        self.check(
            &format!("told after {seconds}"),
            late.then(|| format!("later than {} s", TOLD_WITHIN.as_secs())),
        );
        Ok(())
    }

    /// Whether `thiao vms` shows the node's VM so in time.
    fn shown(&mut self, node: &str, how: &str, is_so: impl Fn(&Vm) -> bool) -> Result<(), Early> {
        let lab = self.lab;
        let mut last = None;
        let so = self.wait(TOLD_WITHIN, |_| {
            last = vm_on(lab, node);
            last.as_ref().is_some_and(&is_so)
        })?;
        if let Some(vm) = &last {
            let note = vm.note.as_deref().unwrap_or_default();
            let host = vm.host.as_deref().unwrap_or("no host");
            let text = format!("thiao vms: {} {node} {} {host} {note}", vm.id, vm.state.word());
            self.show.more(text.trim_end());
        }
        self.check(
            &format!("thiao vms shows it {how}"),
            (!so).then(|| "it does not".to_owned()),
        );
        self.explained(node)
    }

    fn noted(&mut self, node: &str, words: &str) -> Result<(), Early> {
        self.shown(node, &format!("with \"{words}\""), |vm| {
            vm.note.as_deref().is_some_and(|note| note.contains(words))
        })
    }

    /// Shows what `thiao explain` says now.
    fn explained(&mut self, node: &str) -> Result<(), Early> {
        let said = api::explain(&self.lab.layout.api(), node).context("no answer to `thiao explain`")?;
        self.show
            .more(&format!("thiao explain {node}: {}", said.now.join("; ")));
        Ok(())
    }

    fn track(&self, name: &str) -> Result<&Track> {
        let found = self.story.tracks.iter().find(|track| track.job.name == name);
        found.with_context(|| format!("there is no job {name}"))
    }

    /// A job's node, and its VM there.
    fn vm_of(&self, job: &str) -> Result<(String, Vm)> {
        let track = self.track(job)?;
        let node = track
            .nodes
            .first()
            .with_context(|| format!("{job} has no node"))?;
        let vm = vm_on(self.lab, node).with_context(|| format!("{node} has no VM"))?;
        Ok((node.clone(), vm))
    }

    fn boot(&self, job: &str) -> Result<String> {
        let (said, _) = jobs::tick(self.lab, &self.track(job)?.job).context("the job says nothing")?;
        Ok(said
            .proofs
            .get(&0)
            .map_or("", |proof| proof.text("boot"))
            .to_owned())
    }

    /// When the job that stays said last that it is there.
    fn last_tick(lab: &Running, track: &Track) -> Option<u64> {
        jobs::tick(lab, &track.job).map(|(_, at)| at)
    }

    fn goes_on(&mut self) -> Result<(), Early> {
        let (lab, track) = (self.lab, self.track(STAYS)?.clone());
        let from = jobs::now();
        let ticked = self.wait(TOLD_WITHIN, |_| {
            Self::last_tick(lab, &track).is_some_and(|at| at > from + 1000)
        })?;
        self.show.more(&format!(
            "job {}: {}",
            track.job.label(),
            if ticked { "goes on" } else { "does not go on" }
        ));
        self.check("its job goes on", (!ticked).then(|| "it says nothing".to_owned()));
        Ok(())
    }

    fn stands_still(&mut self) -> Result<(), Early> {
        let (lab, track) = (self.lab, self.track(STAYS)?.clone());
        let before = Self::last_tick(lab, &track);
        self.wait(LOOK, |_| false)?;
        let state = self.track(STAYS)?.state.clone();
        let moved = Self::last_tick(lab, &track) != before;
        self.show
            .more(&format!("job {}: {state}, stands still", track.job.label()));
        self.check(
            "its job stands still, and Slurm keeps it RUNNING",
            (moved || state != "RUNNING").then(|| format!("it is {state}, and ticks: {moved}")),
        );
        Ok(())
    }

    /// Whether the guest's clock is right, by when this machine saw what it wrote.
    fn clock_is_right(&mut self) -> Result<(), Early> {
        let (lab, job) = (self.lab, self.track(STAYS)?.job.clone());
        let mut wrong = u64::MAX;
        self.wait(TOLD_WITHIN, |_| {
            let said = jobs::tick(lab, &job).and_then(|(said, at)| Some((said.end?, at)));
            wrong = said.map_or(u64::MAX, |(guest, here)| guest.abs_diff(here));
            wrong <= CLOCK_MS
        })?;
        self.check(
            "its guest's clock is right within 2 s",
            (wrong > CLOCK_MS).then(|| format!("{wrong} ms wrong")),
        );
        Ok(())
    }
}

fn vm_on(lab: &Running, node: &str) -> Option<Vm> {
    let all = api::vms(&lab.layout.api())?;
    all.into_iter().find(|vm| vm.node == node)
}

/// Runs a program that must succeed.
fn succeeds(what: &str, program: &mut std::process::Command) -> Result<()> {
    let output = program
        .output()
        .with_context(|| format!("{what} cannot be run"))?;
    if !output.status.success() {
        bail!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
