//! Calls about hosts.

use crate::front_end::FrontEnd;
use crate::host::{Host, HostState};
use crate::refusal::{Code, Refusal};
use crate::user::User;

impl FrontEnd {
    /// `one.hostpool.info`: newest first; empty for who may not see hosts.
    pub fn hostpool_info(&self, user: &User) -> String {
        let mut out = String::from("<HOST_POOL>");
        let now = self.now();
        for host in self
            .hosts
            .iter()
            .rev()
            .filter(|host| !host.deleted && self.allowed(user, &host.object(), "USE"))
        {
            host.xml(&mut out, false, now);
        }
        out.push_str("</HOST_POOL>");
        out
    }

    /// `one.hostpool.monitoring`: the last values of all hosts.
    pub fn hostpool_monitoring(&self, user: &User) -> String {
        let mut out = String::from("<MONITORING_DATA>");
        for host in self
            .hosts
            .iter()
            .filter(|host| !host.deleted && self.allowed(user, &host.object(), "USE"))
        {
            host.monitoring(&mut out, self.now());
        }
        out.push_str("</MONITORING_DATA>");
        out
    }

    fn seen_host(&self, user: &User, id: i32) -> Result<&Host, Refusal> {
        let host = self.host(id)?;
        self.demand(user, &host.object(), "USE")?;
        Ok(host)
    }

    /// What `one.host.info` answers, in XML.
    pub fn host_info(&self, user: &User, id: i32) -> Result<String, Refusal> {
        let mut out = String::new();
        self.seen_host(user, id)?.xml(&mut out, true, self.now());
        Ok(out)
    }

    /// What `one.host.monitoring` answers, in XML.
    pub fn host_monitoring(&self, user: &User, id: i32) -> Result<String, Refusal> {
        let mut out = String::from("<MONITORING_DATA>");
        self.seen_host(user, id)?.monitoring(&mut out, self.now());
        out.push_str("</MONITORING_DATA>");
        Ok(out)
    }

    /// `one.host.status`: 0 enable, 1 disable, 2 offline.
    pub fn host_status(&mut self, user: &User, id: i32, status: i32) -> Result<u32, Refusal> {
        let host = self.host(id)?;
        self.demand(user, &host.object(), "ADMIN")?;
        let host = host.id;
        let state = match status {
            // INIT, and MONITORED by its next report (`Host.cc` of 7.4), which is there at once here.
            0 => HostState::Monitored,
            1 => HostState::Disabled,
            2 => HostState::Offline,
            _ => {
                return Err(Refusal::plain(
                    Code::Internal,
                    &format!("Wrong status code. {status}"),
                ));
            }
        };
        if let Some(host) = self.host_mut(host) {
            host.state = state;
        }
        self.tell_host(host);
        Ok(host)
    }

    /// `one.host.delete`: refused as long as VMs count on it (`HostAPI.cc` of 7.4).
    pub fn host_delete(&mut self, user: &User, id: i32) -> Result<u32, Refusal> {
        let host = self.host(id)?;
        let (id, empty) = (host.id, host.vms.is_empty());
        if !user.is_admin() {
            let text = format!("Not authorized to perform ADMIN HOST [{id}]");
            return Err(Refusal::unauthorized(user.id, &text));
        }
        if !empty {
            let text = "Cannot delete host. Can not remove a host with running VMs";
            return Err(Refusal::plain(Code::Action, text));
        }
        if let Some(host) = self.host_mut(id) {
            host.deleted = true;
        }
        Ok(id)
    }
}
