//! Calls about virtual networks.

use crate::front_end::FrontEnd;
use crate::refusal::Refusal;
use crate::user::User;

impl FrontEnd {
    /// What `one.vnpool.info` answers, in XML.
    pub fn vnpool_info(&self, user: &User) -> String {
        let mut out = String::from("<VNET_POOL>");
        for network in self
            .networks
            .iter()
            .rev()
            .filter(|network| self.allowed(user, &network.object(), "USE"))
        {
            network.xml(&mut out, false);
        }
        out.push_str("</VNET_POOL>");
        out
    }

    /// What `one.vn.info` answers, in XML.
    pub fn vn_info(&self, user: &User, id: i32) -> Result<String, Refusal> {
        let network = usize::try_from(id)
            .ok()
            .and_then(|at| self.networks.get(at))
            .ok_or_else(|| Refusal::no_such_signed("virtual network", id))?;
        self.demand(user, &network.object(), "USE")?;
        let mut out = String::new();
        network.xml(&mut out, true);
        Ok(out)
    }
}
