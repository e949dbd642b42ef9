//! Users, admins and outsiders, and what breaks around them.

use super::{MISCHIEF, Repair, Sim};
use crate::faults::Fault;
use crate::provider::Vm;
use crate::slurm::{Call, Hook, Node, Power, Site};
use std::collections::BTreeMap;
use thiao_core::ids::{ClusterName, Generation, HostName, JobId, Millis, NodeName, Time, VmId, VmTag};

/// Whom it meets this time, and until when.
struct Victims {
    node: NodeName,
    host: HostName,
    until: Time,
}

impl Sim {
    /// Users submit, admins and outsiders do what they do.
    pub(super) fn people(&mut self) {
        let now = self.now;
        while let Some(job) = self.setup.jobs.get(self.submitted) {
            if now.since(self.begin) < job.submit {
                break;
            }
            self.submitted += 1;
            let id = JobId(u32::try_from(self.submitted).unwrap_or(u32::MAX));
            match &job.job_mode {
                None => {
                    self.slurm.submit(id, job.size, job.length, now);
                    if self.faults.strikes(Fault::SitePartition)
                        && let Some(job) = self.slurm.jobs.get_mut(&id)
                    {
                        job.site = Site::Anywhere;
                    }
                }
                Some(plan) => {
                    let job_mode = plan.submitted(id);
                    self.slurm
                        .submit_job_mode(id, job.size, job.length, job_mode, now);
                    let cancel = plan.cancel.map(|after| (now + after, Repair::Cancel(id)));
                    self.repairs.extend(cancel);
                }
            }
            self.tell(format!("job {id} submitted"));
        }
        let (due, later) = std::mem::take(&mut self.repairs)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.repairs = later;
        let due: Vec<(Time, Repair)> = due;
        due.into_iter().for_each(|(_, repair)| self.repair(repair));
        if now >= self.next_mischief {
            self.next_mischief = now + MISCHIEF;
            self.mischief();
        }
    }

    fn repair(&mut self, repair: Repair) {
        match repair {
            Repair::Host(name) => {
                for host in self.provider.hosts.iter_mut().filter(|host| host.name == name) {
                    host.usable = true;
                }
            }
            Repair::Drain(name) | Repair::Down(name) => self.slurm.admin_resume(&name, self.now),
            Repair::Cancel(id) => self.slurm.cancel(id, self.now),
        }
    }

    fn mischief(&mut self) {
        let until = self.now + Millis(self.rng.between(1000, 60_000));
        let names: Vec<NodeName> = self.slurm.nodes.keys().cloned().collect();
        let hosts: Vec<HostName> = self.provider.hosts.iter().map(|host| host.name.clone()).collect();
        let (Some(node), Some(host)) = (self.rng.pick(&names).cloned(), self.rng.pick(&hosts).cloned())
        else {
            return;
        };
        let victims = Victims { node, host, until };
        self.machines_fail(&victims);
        self.outsiders_come(&victims);
        self.orders_by_hand(&victims);
        self.consoles(&victims);
        self.journal_is_restored();
        if self.slurm.answers(self.now) {
            self.admins_meddle(&victims);
        }
    }

    fn machines_fail(&mut self, Victims { node, host, until }: &Victims) {
        if self.faults.strikes(Fault::SlurmctldRestarts) && self.slurm.answers(self.now) {
            self.tell("slurmctld restarts".into());
            let away = Millis(self.rng.between(1000, 25_000));
            self.slurm.restart(self.now + away);
        }
        if self.faults.strikes(Fault::HostUnusable) {
            self.tell(format!("host {host} unusable"));
            for seen in self.provider.hosts.iter_mut().filter(|seen| seen.name == *host) {
                seen.usable = false;
            }
            self.repairs.push((*until, Repair::Host(host.clone())));
        }
        if self.faults.strikes(Fault::SpoolFull) && self.slurm.answers(self.now) {
            let backed = |id: &VmId| self.provider.vms.get(id).is_some_and(Vm::works);
            let up = self
                .slurm
                .nodes
                .get(node)
                .is_some_and(|seen| seen.power == Power::On && seen.backed.as_ref().is_some_and(backed));
            if up && self.slurm.slurmd_drains(node) {
                self.tell(format!("the spool of {node} is full, and slurmd drains it"));
            }
        }
        if self.faults.strikes(Fault::VmHidden) {
            let ids: Vec<VmId> = self.provider.vms.keys().cloned().collect();
            if let Some(vm) = self.rng.pick(&ids).and_then(|id| self.provider.vms.get_mut(id)) {
                vm.hidden_until = *until;
                let line = format!("{} hidden", vm.view.id);
                self.tell(line);
            }
        }
    }

    /// VMs that somebody else made.
    fn outsiders_come(&mut self, Victims { node, host, .. }: &Victims) {
        if self.faults.strikes(Fault::ForeignVm) && self.provider.free_mb(host) >= 20 {
            let other = VmTag {
                cluster: ClusterName::new("other").expect("a cluster's name"),
                node: node.clone(),
                generation: Generation(self.rng.below(4)),
            };
            let tag = self.rng.coin().then_some(other);
            self.provider.add_outsider(tag, host, 20);
        }
        if self.faults.strikes(Fault::TwinVm) && self.provider.free_mb(host) >= 10 {
            let known = self.controller.world().records.get(node);
            let known = known.map_or(0, |record| record.generation.0);
            let generation = Generation((known + self.rng.below(4)).saturating_sub(1));
            let tag = self.controller.world().tag(node, generation);
            let mut vms = self.provider.vms.values();
            if !vms.any(|vm| vm.view.tag.as_ref() == Some(&tag)) {
                self.tell(format!("somebody makes a twin {tag}"));
                if generation.0 > known {
                    // The record may become the twin's: then only a listing can tell of what was there before.
                    let of_node = |vm: &&mut Vm| vm.view.tag.as_ref().is_some_and(|its| its.node == *node);
                    let before = self.provider.vms.values_mut().filter(|vm| !vm.outsider);
                    before.filter(of_node).for_each(|vm| vm.forgotten = true);
                }
                self.provider.add_outsider(Some(tag), host, 10);
            }
        }
    }

    fn orders_by_hand(&mut self, Victims { node, .. }: &Victims) {
        for (fault, hook) in [
            (Fault::SuspendByHand, Hook::Suspend),
            (Fault::ResumeByHand, Hook::Resume),
        ] {
            if self.faults.strikes(fault) {
                self.tell("by hand:".into());
                self.write_order(Call {
                    hook,
                    nodes: vec![node.clone()],
                    jobs: BTreeMap::new(),
                });
            }
        }
    }

    /// What people do to VMs at the provider's console.
    fn consoles(&mut self, Victims { node, until, .. }: &Victims) {
        let undeployed = self.faults.strikes(Fault::UndeployByHand);
        let given = self.faults.strikes(Fault::GivenAway);
        if !(undeployed || given) {
            return;
        }
        let overhears = self.rng.chance(300);
        let mine = |vm: &&mut Vm| {
            let of_node = vm.view.tag.as_ref().is_some_and(|tag| tag.node == *node);
            of_node && !vm.outsider && vm.works()
        };
        let Some(vm) = self.provider.vms.values_mut().find(mine) else {
            return;
        };
        let line = match undeployed {
            true => {
                vm.undeploy(*until, overhears);
                format!("somebody undeploys {}", vm.view.id)
            }
            false => {
                vm.give_away(*until);
                format!("somebody gives {} away", vm.view.id)
            }
        };
        self.tell(line);
    }

    fn journal_is_restored(&mut self) {
        if self.setup.faults.of(Fault::JournalRestored) > 0 && self.rng.chance(50) {
            self.controller.back_up();
        }
        if self.faults.strikes(Fault::JournalRestored) {
            let restored = self
                .controller
                .restore(&mut self.slurm, &mut self.provider, &self.faults);
            if restored {
                self.tell("somebody restores an older journal".into());
            }
        }
    }

    /// What admins do to nodes by slurmctld.
    fn admins_meddle(&mut self, Victims { node, until, .. }: &Victims) {
        if self.faults.strikes(Fault::AdminDrains) {
            self.tell(format!("admin drains {node}"));
            self.slurm.admin_drain(node, self.now);
            self.repairs.push((*until, Repair::Drain(node.clone())));
        }
        if self.faults.strikes(Fault::AdminDowns) {
            self.tell(format!("admin sets {node} DOWN"));
            self.slurm.admin_down(node, self.now);
            self.repairs.push((*until, Repair::Down(node.clone())));
        }
        if self.faults.strikes(Fault::PartitionShrunk)
            && let Some(seen) = self.slurm.nodes.get_mut(node)
        {
            seen.outside_until = *until;
            self.tell(format!("admin takes {node} out of its partition"));
        }
        if self.faults.strikes(Fault::NodeUnknown) {
            // Jobs on it would be killed: nobody does that.
            let free = |seen: &&mut Node| seen.job.is_none();
            if let Some(seen) = self.slurm.nodes.get_mut(node).filter(free) {
                seen.unknown_until = *until;
                self.tell(format!("{node} out of slurm.conf"));
            }
        }
    }

    /// From now on nothing goes wrong any more.
    pub(super) fn calm(&mut self) {
        self.tell("faults stop".into());
        self.faults.stop();
        self.repair_all();
    }

    /// People undo what they did.
    pub(super) fn repair_all(&mut self) {
        for (at, repair) in &mut self.repairs {
            match repair {
                Repair::Cancel(_) => {}
                Repair::Host(_) | Repair::Drain(_) | Repair::Down(_) => *at = self.now,
            }
        }
        for node in self.slurm.nodes.values_mut() {
            node.unknown_until = Time(0);
            node.outside_until = Time(0);
        }
        for vm in self.provider.vms.values_mut() {
            vm.hidden_until = Time(0);
            vm.leave_alone();
        }
        self.provider
            .vms
            .retain(|id, vm| !self.check.is_foreign(id) || !vm.outsider);
        self.check.foreign_gone();
    }
}
