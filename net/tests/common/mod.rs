//! Shared by the tests of several files.

use std::io;
use std::time::Duration;

use ringspun_fibers as fibers;

/// Runs `test` in a runtime, and checks that nothing is left when it ends.
pub fn run(test: impl FnOnce() -> io::Result<()> + 'static) {
    fibers::run(move || {
        test()?;
        // What was dropped is closed once its operations have ended.
        while fibers::event_loop().unwrap().statistics().operations_in_flight > 0
            || fibers::statistics().unwrap().alive > 1
        {
            fibers::sleep(Duration::from_millis(1))?;
        }
        let left = fibers::event_loop().unwrap().statistics();
        assert_eq!((left.timers, left.buffers_lent), (0, 0));
        io::Result::Ok(())
    })
    .unwrap()
    .unwrap();
}
