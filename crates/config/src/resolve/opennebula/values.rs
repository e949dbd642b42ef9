//! Values that several keys take: OpenNebula's names, and attributes of its devices.

/// The keys of `gpu_pci`: OpenNebula's attributes of PCI, in small letters.
pub const PCI_KEYS: [&str; 5] = ["vendor", "device", "class", "short_address", "profile"];

/// Takes a name that OpenNebula may have given to something.
pub fn name(text: &str) -> Result<String, String> {
    if text.trim() != text || text.is_empty() || text.len() > 128 || text.chars().any(char::is_control) {
        return Err("use 1 to 128 characters, none of them a control character".to_owned());
    }
    Ok(text.to_owned())
}

/// As OpenNebula names them.
pub fn attributes_of_pci(given: impl IntoIterator<Item = (String, String)>) -> Vec<(String, String)> {
    let pairs = given.into_iter();
    pairs
        .map(|(key, text)| (key.to_ascii_uppercase(), text))
        .collect()
}

/// Refuses what cannot be an attribute of PCI.
pub fn pci(key: &str, text: &str) -> Result<(), String> {
    let hex = |text: &str, digits: usize| text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    let (good, wanted) = match key {
        "vendor" | "device" | "class" => (hex(text, 4), "four hexadecimal digits, e.g. \"10de\""),
        "short_address" => {
            let parts = text.split_once(':').and_then(|(bus, rest)| {
                let (slot, function) = rest.split_once('.')?;
                Some(hex(bus, 2) && hex(slot, 2) && hex(function, 1))
            });
            (parts == Some(true), "bus, slot and function, e.g. \"02:00.0\"")
        }
        "profile" => (name(text).is_ok(), "the profile's number or name"),
        _ => {
            return Err(format!(
                "is no attribute of a PCI device: use {}",
                PCI_KEYS.join(", ")
            ));
        }
    };
    good.then_some(())
        .ok_or_else(|| format!("{text:?} is not possible: write {wanted}"))
}
