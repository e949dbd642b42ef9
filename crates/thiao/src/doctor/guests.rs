//! What runs in the embedded provider's VMs: whether it is there, and of a version that slurmctld takes.

use thiao_config::{Config, Mode, Nodeset};
use thiao_core::finding::Finding;
use thiao_core::ids::NodesetName;
use thiao_qemu::disk;
use thiao_qemu::image::built::{About, check};
use thiao_qemu::{Guests, Settings};
use thiao_slurm::Version;

/// Looks at the image of each nodeset, and judges it.
#[must_use]
pub fn examine(settings: &Settings, slurmctld: Option<Version>) -> Vec<Finding> {
    let one = |kind: &&Guests| match kind {
        Guests::Small => Finding::ok(
            "small guests",
            "have Slurm, bash and busybox alone: an image is what users can work in",
        ),
        Guests::Built(name) => {
            let about = About::read(&settings.cache_dir, name).map_err(|error| error.to_string());
            let whole = || match check(&settings.cache_dir, name) {
                Ok(_) => Ok(()),
                Err(error) => Err((error.to_string(), error.is_denied())),
            };
            built(name.as_str(), about, whole, slurmctld)
        }
        Guests::Brought(file) => match disk::brought(file) {
            Ok(_) => Finding::ok(
                format!("image {}", file.display()),
                "is there; `thiao image check` says whether VMs of it can work",
            ),
            Err(error) => Finding::bad(format!("image {}", file.display()), error.to_string())
                .advice("name a whole machine's disk, raw or qcow2, as `image` in thiao.toml"),
        },
    };
    settings.kinds().iter().map(one).collect()
}

/// Says which nodesets' images are told of nobody: those with cloud-init, which learns all of it as the VM boots,
/// where a VM is for one job after another.
#[must_use]
pub fn strangers(config: &Config, settings: &Settings) -> Vec<Finding> {
    let told = |name: &NodesetName, set: &Nodeset| {
        let kind = settings.nodesets.get(name).unwrap_or(&settings.guests);
        match (kind, set.mode()) {
            (Guests::Brought(_), Mode::PowerSaving) => !settings.guest.everybody,
            (Guests::Brought(_), Mode::Job) | (Guests::Small | Guests::Built(_), _) => true,
        }
    };
    let of = |name: &NodesetName| {
        Finding::warn(
            format!("users in {name}"),
            "its VMs are made before it is known whose jobs come, and nobody tells an image with cloud-init later: \
             jobs of users whom the image does not know fail",
        )
        .advice(
            "mode = \"job\" for this nodeset, or an image that knows the users by itself (LDAP, sssd), with their folders \
             by [[mount]]",
        )
    };
    let sets = config.nodesets.iter().filter(|(name, set)| !told(name, set));
    sets.map(|(name, _)| of(name)).collect()
}

/// Judges an image by its name. `whole`: what is wrong with its files, and whether it is only that they may not be
/// read.
fn built(
    name: &str,
    about: Result<Option<About>, String>,
    whole: impl FnOnce() -> Result<(), (String, bool)>,
    slurmctld: Option<Version>,
) -> Finding {
    let what = format!("image {name}");
    let about = match about {
        Ok(Some(about)) => about,
        Ok(None) => {
            return Finding::bad(what, "is not there: no VM of it can be made")
                .run(format!("thiao image build {name}"));
        }
        Err(error) => return Finding::bad(what, error).run(format!("thiao image rebuild {name}")),
    };
    if let Err((error, denied)) = whole() {
        return Finding::bad(what, error)
            .run(format!("thiao image rebuild {name}"))
            .unless_denied(denied);
    }
    let told = format!("Debian {}, Slurm {}", about.recipe.suite, about.slurm_version);
    let release = |version: Version| (version.major, version.minor);
    match (Version::parse(&about.slurm_version), slurmctld) {
        (Some(slurmd), Some(slurmctld)) if release(slurmd) > release(slurmctld) => Finding::bad(
            what,
            format!("{told}: slurmctld is {slurmctld}, and refuses a slurmd that is newer"),
        )
        .advice("make it of a release of Debian whose Slurm is not newer: thiao image rebuild, with --suite"),
        _ if about.accounts.is_empty() => Finding::warn(
            what,
            format!("{told}: it was made when nothing was kept of its own users, so a user with the number of one may run jobs as that one"),
        )
        .run(format!("thiao image rebuild {name}")),
        _ => Finding::ok(what, told),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thiao_config::ProviderSettings;
    use thiao_core::finding::Verdict;
    use thiao_qemu::image::built::Recipe;

    #[test]
    fn an_image_is_there_and_not_newer_than_slurmctld() {
        let about = |slurm_version: &str| About {
            recipe: Recipe {
                suite: "bookworm".into(),
                packages: vec![],
                free_mb: 1,
            },
            digest: String::new(),
            disk_sum: String::new(),
            kernel_sum: None,
            packages: vec![],
            kernel_release: String::new(),
            slurm_version: slurm_version.into(),
            accounts: [("root".to_owned(), 0)].into(),
            made: 0,
        };
        let slurmctld = Some(Version::new(22, 5, 8));
        let verdict = |about| built("debian", about, || Ok(()), slurmctld).verdict;
        let broken = || Err(("the disk is damaged".to_owned(), false));
        let damaged = built("debian", Ok(Some(about("22.05.8"))), broken, slurmctld);
        assert!(
            damaged.verdict == Verdict::Bad && damaged.text.contains("damaged"),
            "{damaged:?}"
        );
        assert_eq!(verdict(Ok(Some(about("22.05.8")))), Verdict::Ok);
        assert_eq!(verdict(Ok(Some(about("24.11.5")))), Verdict::Bad);
        assert_eq!(verdict(Ok(None)), Verdict::Bad);
        assert_eq!(verdict(Err("damaged".into())), Verdict::Bad);
    }

    #[test]
    fn an_image_of_the_sites_own_is_told_of_people_in_job_mode_alone() {
        let found = |more: &str, users: &str| {
            let text = format!(
                "cluster = \"c\"\n[[nodeset]]\nname = \"own\"\nnodes = \"own[0-1]\"\nmemory_mb = 512\n{more}\n\
                 [qemu]\n{users}\n"
            );
            let config = thiao_config::from_text("/etc/thiao/thiao.toml".as_ref(), &text).unwrap();
            let ProviderSettings::Qemu(settings) = &config.provider else {
                panic!("another provider")
            };
            strangers(&config, settings).len()
        };
        let image = "image = \"/srv/site.qcow2\"";
        assert_eq!(found(image, ""), 1);
        assert_eq!(found(&format!("{image}\nmode = \"job\""), ""), 0);
        assert_eq!(found("image = \"debian\"", ""), 0);
        assert_eq!(found(image, "users = [\"nobody\"]"), 0);
    }
}
