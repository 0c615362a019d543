//! The smallest program that embeds Ringspun: an echo server and its client, on one thread.

use ringspun::net;

fn main() -> std::io::Result<()> {
    ringspun::run(|| {
        let server = net::server("127.0.0.1:0", |stream| {
            while let Ok(Some(bytes)) = stream.receive() {
                if stream.write(&bytes).is_err() {
                    break;
                }
            }
        })?;
        let client = net::connect(server.localname()?)?;
        client.write(b"spun in a ring")?;
        let mut echo = [0; 14];
        client.chunk(&mut echo)?;
        assert_eq!(&echo, b"spun in a ring");
        println!("echoed: {}", String::from_utf8_lossy(&echo));
        Ok(())
    })?
}
