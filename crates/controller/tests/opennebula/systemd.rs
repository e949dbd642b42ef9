//! What systemd hears of the controller that it started.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;
use thiao_testkit::day::Day;

#[test]
fn systemd_is_told_when_the_controller_is_up() {
    let mut day = Day::new(1);
    let path = day.site.path("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    day.environment.push(("NOTIFY_SOCKET", path));
    day.start();
    let mut told = [0; 64];
    let length = systemd.recv(&mut told).unwrap();
    assert_eq!(&told[..length], b"READY=1\n");
    day.until_logged("thiaod is up");
}
