//! Prints where the tests' image with cloud-init is; makes it if there is none.

fn main() {
    println!("{}", thiao_testkit::images::with_cloud_init().display());
}
