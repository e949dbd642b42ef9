//! Whether the slurmd of OpenNebula's images is one that slurmctld takes: what a template says of it, against
//! slurmctld. Slurm refuses a slurmd that is newer than slurmctld, after the VM was made and has booted.

use std::collections::BTreeSet;
use thiao_config::{Config, ProviderSettings};
use thiao_core::finding::Finding;
use thiao_opennebula::check::{Seen, registered};
use thiao_opennebula::settings::TemplateSource;
use thiao_opennebula::syntax::Template;
use thiao_slurm::Version;

/// The attribute of a VM template that says which Slurm is in its image.
const VERSION: &str = "SLURM_VERSION";
const WHAT: &str = "slurmd";

/// Judges the templates of the nodesets; nothing where slurmctld or the templates are not known.
#[must_use]
pub fn judge(config: &Config, seen: Option<&Seen>, slurmctld: Option<Version>) -> Vec<Finding> {
    let (ProviderSettings::OpenNebula(settings), Some(seen), Some(slurmctld)) =
        (&config.provider, seen, slurmctld)
    else {
        return Vec::new();
    };
    let Ok(templates) = &seen.templates else {
        return Vec::new();
    };
    let sources: BTreeSet<&TemplateSource> = settings
        .nodesets
        .values()
        .map(|source| &source.template)
        .collect();
    let mut found = Vec::new();
    for source in sources {
        let (name, body) = match source {
            TemplateSource::Registered(name) => match registered(templates, name) {
                Ok(template) => (format!("template {name}"), &template.body),
                // Said by others.
                Err(_) => continue,
            },
            TemplateSource::File(path) | TemplateSource::PerNode(path) => {
                let mut files = seen.files.iter().filter(|(file, _)| file.starts_with(path));
                match files.find_map(|(_, read)| read.as_ref().ok()) {
                    Some(body) => (path.display().to_string(), body),
                    None => continue,
                }
            }
        };
        found.extend(one(&name, body, settings.guest.slurm_worker, slurmctld));
    }
    found
}

/// What is to be said of one template.
fn one(name: &str, body: &Template, slurm_worker: bool, slurmctld: Version) -> Option<Finding> {
    let Some(text) = body.get(VERSION) else {
        let finding = Finding::warn(
            WHAT,
            format!(
                "{name} does not say which Slurm is in OpenNebula's SlurmWorker appliance: slurmctld is {slurmctld}, \
                 and refuses a slurmd that is newer"
            ),
        );
        let advice = format!(
            "see `slurmd -V` in a VM of it, and write it into the template: {VERSION} = \"...\" (onetemplate update)"
        );
        return slurm_worker.then(|| finding.advice(advice));
    };
    let Some(version) = Version::parse(text) else {
        let finding = Finding::warn(
            WHAT,
            format!("{name} has {VERSION} = {text:?}, which is no Slurm release"),
        );
        return Some(finding.advice("write it as `slurmd -V` does, e.g. 22.05.8"));
    };
    let release = |version: Version| (version.major, version.minor);
    Some(if release(version) > release(slurmctld) {
        Finding::bad(
            WHAT,
            format!(
                "{name} says that its slurmd is {version}: slurmctld is {slurmctld}, and refuses one that is newer"
            ),
        )
        .advice("use an image whose Slurm is of slurmctld's release, or of one just before it")
    } else {
        Finding::ok(
            WHAT,
            format!("{name} has {version}, and slurmctld is {slurmctld}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use thiao_core::finding::Verdict;

    fn verdict(text: &str, slurm_worker: bool) -> Option<(Verdict, String)> {
        let body = Template::parse(text).expect("a template");
        let slurmctld = Version::parse("22.05.8").expect("a release");
        let finding = one("template worker", &body, slurm_worker, slurmctld)?;
        Some((finding.verdict, finding.text))
    }

    #[test]
    fn a_slurmd_newer_than_slurmctld_is_told_before_a_vm_is_made() {
        let (verdict_of, text) = verdict("SLURM_VERSION = \"25.11.2\"", false).expect("a finding");
        assert_eq!(verdict_of, Verdict::Bad);
        assert!(text.contains("25.11.2") && text.contains("22.05.8"), "{text}");
        for known in ["22.05.8", "22.05.11", "21.08"] {
            let found = verdict(&format!("SLURM_VERSION = \"{known}\""), true).expect("a finding");
            assert_eq!(found.0, Verdict::Ok, "{known}");
        }
        assert_eq!(
            verdict("SLURM_VERSION = \"new\"", false).expect("a finding").0,
            Verdict::Warn
        );
        // A site knows its own images; of the appliance it has to be looked up.
        assert_eq!(verdict("CPU = 1", false), None);
        assert_eq!(verdict("CPU = 1", true).expect("a finding").0, Verdict::Warn);
    }
}
