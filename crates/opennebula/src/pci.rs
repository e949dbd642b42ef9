//! Devices of hosts that VMs get whole, as GPUs are. oned tells devices apart as this does (`HostSharePCI.cc`
//! of 7.4): vendor, device and class are hexadecimal numbers, and what is not asked for is any.

/// One device of a host (`PCI` in `HOST_SHARE`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PciDevice {
    pub(crate) vendor: Option<u32>,
    pub(crate) device: Option<u32>,
    pub(crate) class: Option<u32>,
    pub(crate) short_address: String,
    /// The VM that has it, by id; none: it is free.
    pub vm: Option<u32>,
}

impl PciDevice {
    /// Whether this is one of those that a VM gets who asks by these attributes of `PCI`; none: nobody can tell
    /// from a host's listing, which does not say what a `PROFILE` stands for.
    #[must_use]
    pub fn is_one_of(&self, asked: &[(String, String)]) -> Option<bool> {
        let get = |name: &str| asked.iter().find(|(key, _)| key == name).map(|(_, text)| text);
        if let Some(address) = get("SHORT_ADDRESS") {
            return Some(self.short_address == *address);
        }
        let numbers = [
            ("VENDOR", self.vendor),
            ("DEVICE", self.device),
            ("CLASS", self.class),
        ];
        let mut named = numbers
            .iter()
            .filter_map(|(name, ours)| Some((get(name)?, ours)))
            .peekable();
        named.peek()?;
        Some(named.all(|(text, ours)| hex(text).is_some_and(|asked| *ours == Some(asked))))
    }
}

/// As oned reads such numbers.
pub(crate) fn hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_apart_as_oned_does() {
        let gpu = PciDevice {
            vendor: Some(0x10de),
            device: Some(0x2235),
            class: Some(0x0302),
            short_address: "02:00.0".to_owned(),
            vm: None,
        };
        let asked = |pairs: &[(&str, &str)]| {
            let owned: Vec<_> = pairs
                .iter()
                .map(|(key, text)| ((*key).to_owned(), (*text).to_owned()))
                .collect();
            gpu.is_one_of(&owned)
        };
        assert_eq!(
            asked(&[("VENDOR", "10DE"), ("DEVICE", "2235"), ("CLASS", "0302")]),
            Some(true)
        );
        assert_eq!(asked(&[("VENDOR", "10de"), ("PROFILE", "nvidia-63")]), Some(true));
        assert_eq!(asked(&[("VENDOR", "10de"), ("DEVICE", "2236")]), Some(false));
        assert_eq!(asked(&[("SHORT_ADDRESS", "02:00.0")]), Some(true));
        assert_eq!(asked(&[("SHORT_ADDRESS", "03:00.0")]), Some(false));
        assert_eq!(asked(&[("PROFILE", "nvidia-63")]), None);
    }
}
