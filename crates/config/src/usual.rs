//! Where things are by custom.

/// Where slurm.conf is if nothing says otherwise.
pub const DEFAULT_SLURM_CONF: &str = "/etc/slurm/slurm.conf";
/// Where the file is when neither `--config` nor `THIAO_CONFIG` names one.
pub const DEFAULT_FILE: &str = "/etc/thiao/thiao.toml";

/// Root's lab, where no other folder is named.
pub const ROOTS_LAB: &str = "/var/lib/thiao-lab";

/// In a lab this variable of the environment names its folder.
pub const LAB_VARIABLE: &str = "THIAO_LAB";

/// Where guest images and kernels are kept when the file does not say.
pub const DEFAULT_CACHE_DIR: &str = "/var/cache/thiao";

/// Where the state is when the file does not say.
pub(crate) const DEFAULT_STATE_DIR: &str = "/var/lib/thiao";
