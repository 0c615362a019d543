//! An echo server: one fiber per connection.
fn main() -> std::io::Result<()> {
    ringspun::run(|| {
        let listener = ringspun::net::listen("127.0.0.1:0")?; // 0: a port that is free
        println!("listening at {}", listener.localname()?);
        listener.accept_loop(|stream| {
            while let Ok(Some(bytes)) = stream.receive() {
                if stream.write(&bytes).is_err() {
                    break;
                }
            }
        })
    })?
}
