//! What runs in the embedded provider's VMs: whether it is there, and of a version that slurmctld takes.

use thiao_core::finding::Finding;
use thiao_qemu::disk;
use thiao_qemu::image::built::About;
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
            built(name.as_str(), about, slurmctld)
        }
        Guests::Brought(file) => match disk::brought(file) {
            Ok(_) => Finding::ok(
                format!("image {}", file.display()),
                "is there; `thiao image check` says whether VMs of it can work",
            ),
            Err(error) => Finding::bad(format!("image {}", file.display()), error.to_string())
                .advice("name one that is there, raw or qcow2, as `image` in thiao.toml"),
        },
    };
    settings.kinds().iter().map(one).collect()
}

/// Judges an image by its name.
fn built(name: &str, about: Result<Option<About>, String>, slurmctld: Option<Version>) -> Finding {
    let what = format!("image {name}");
    let about = match about {
        Ok(Some(about)) => about,
        Ok(None) => {
            return Finding::bad(what, "is not there: no VM of it can be made")
                .run(format!("thiao image build {name}"));
        }
        Err(error) => return Finding::bad(what, error).run(format!("thiao image rebuild {name}")),
    };
    let told = format!("Debian {}, Slurm {}", about.recipe.suite, about.slurm_version);
    let release = |version: Version| (version.major, version.minor);
    match (Version::parse(&about.slurm_version), slurmctld) {
        (Some(slurmd), Some(slurmctld)) if release(slurmd) > release(slurmctld) => Finding::bad(
            what,
            format!("{told}: slurmctld is {slurmctld}, and refuses a slurmd that is newer"),
        )
        .advice("make it of a release of Debian whose Slurm is not newer: thiao image rebuild, with --suite"),
        _ => Finding::ok(what, told),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
            packages: vec![],
            kernel_release: String::new(),
            slurm_version: slurm_version.into(),
            made: 0,
        };
        let slurmctld = Some(Version::new(22, 5, 8));
        let verdict = |about| built("debian", about, slurmctld).verdict;
        assert_eq!(verdict(Ok(Some(about("22.05.8")))), Verdict::Ok);
        assert_eq!(verdict(Ok(Some(about("24.11.5")))), Verdict::Bad);
        assert_eq!(verdict(Ok(None)), Verdict::Bad);
        assert_eq!(verdict(Err("damaged".into())), Verdict::Bad);
    }
}
