//! What cannot be done with a plan, before anything is done.

use std::time::Duration;

use super::*;

impl Plan {
    /// Checks the values of the plan.
    ///
    /// # Errors
    ///
    /// A message that names the first invalid value and what was expected.
    pub fn check(&self) -> Result<(), String> {
        self.check_workload()?;
        if !(1..=CONNECTIONS_MAX).contains(&self.connections) {
            return Err(format!("{} connections: expected 1 to {CONNECTIONS_MAX}", self.connections));
        }
        if !(1..=self.connections.min(WORKERS_MAX)).contains(&self.workers) {
            let max = self.connections.min(WORKERS_MAX);
            return Err(format!(
                "{} workers for {} connection{}: expected 1 to {max}",
                self.workers,
                self.connections,
                if self.connections == 1 { "" } else { "s" }
            ));
        }
        if let (Target::Udp(_) | Target::Unix(_), Some(detour)) = (&self.target, &self.detour) {
            return Err(format!(
                "{detour} cannot be connected to for {}: expected tcp://, tls://, http:// or https://",
                self.target
            ));
        }
        let is_unix = matches!(self.target, Target::Unix(_)) || matches!(self.detour, Some(Detour::Unix(_)));
        if let (true, Some(source)) = (is_unix, self.sources.first()) {
            return Err(format!(
                "the source address {source} cannot be used with {}: expected tcp://, tls://, udp:// or http://, not \
                 over a Unix socket",
                self.shown_target()
            ));
        }
        if self.tls != TlsOptions::default() && !self.speaks_tls() {
            return Err(format!("TLS is not spoken with {}: expected tls:// or https://", self.target));
        }
        if let Some(name) = self.tls.alpn.iter().find(|name| !(1..=255).contains(&name.len())) {
            return Err(format!("a protocol to offer in TLS has {} bytes: expected 1 to 255", name.len()));
        }
        if !self.follow_to.is_empty() && !self.follows() {
            return Err(format!(
                "redirects to other servers ({}): expected HTTP requests with redirects to follow",
                self.follow_to.iter().map(HttpTarget::origin).collect::<Vec<_>>().join(", ")
            ));
        }
        self.check_requests_per_connection()?;
        self.check_http2()?;
        self.check_sessions()?;
        self.check_pace()?;
        if self.timeout.is_zero() {
            return Err("the timeout is 0: expected more".to_string());
        }
        let length = match self.length {
            Length::Count(0) => return Err("the count is 0 requests: expected 1 or more".to_string()),
            Length::Count(_) => Duration::ZERO,
            Length::Duration(Duration::ZERO) => return Err("the duration is 0: expected more".to_string()),
            Length::Duration(duration) => duration,
        };
        for (name, duration) in [
            ("timeout", self.timeout),
            ("ramp-up", self.ramp_up),
            ("warm-up", self.warmup),
            ("duration", length),
        ] {
            if duration > DURATION_MAX {
                return Err(format!("the {name} is {} s: expected 1000 days or less", duration.as_secs()));
            }
        }
        Ok(())
    }

    fn check_pace(&self) -> Result<(), String> {
        match &self.pace {
            Pace::Closed => Ok(()),
            Pace::Open { rate } => {
                rate.check()?;
                let seconds = |count: u64| count as f64 / rate.as_per_s();
                match self.length {
                    Length::Count(count) if seconds(count) > DURATION_MAX.as_secs_f64() => {
                        Err(format!("{count} requests at {rate} take more than 1000 days: expected fewer"))
                    }
                    _ => Ok(()),
                }
            }
            Pace::Steps(steps) => {
                steps.iter().try_for_each(Step::check)?;
                let first = steps.first().ok_or("there are no steps: expected one or more")?;
                if first.from == Rate::ZERO && !self.lead().is_zero() {
                    return Err(format!(
                        "a ramp-up or a warm-up needs a rate, but the first step starts with {first}: \
                         expected more than 0"
                    ));
                }
                match self.length == Length::Duration(total(steps)) {
                    true => Ok(()),
                    false => Err(format!(
                        "the length is {:?} with steps: expected the sum of the steps, {:?}",
                        self.length,
                        total(steps)
                    )),
                }
            }
        }
    }

    fn check_workload(&self) -> Result<(), String> {
        let Self { workload, target, .. } = self;
        match (workload, target) {
            (Workload::Driven { name }, _) => return self.check_driven(name),
            (Workload::Http(request), Target::Http(target)) => {
                request.check()?;
                if request.follow > 0 && (self.pipeline > 1 || self.requests.is_some()) {
                    return Err(
                        "redirects are followed for a single request without pipelining: expected neither a \
                                list of requests nor a pipeline"
                            .to_string(),
                    );
                }
                self.requests.as_ref().map_or(Ok(()), |list| list.check(target))?;
            }
            _ if self.requests.is_some() => {
                return Err(format!(
                    "a list of requests cannot be sent to {target}: expected http:// or https://"
                ));
            }
            (Workload::WebSocket(request), Target::WebSocket(_)) if cfg!(feature = "websocket") => {
                request.check(MESSAGE_MAX_BYTES)?;
                return self.check_pipeline();
            }
            (_, Target::WebSocket(_)) if !cfg!(feature = "websocket") => {
                return Err("WebSocket is not part of this build: expected the feature websocket of \
                            ringspun-load"
                    .to_string());
            }
            (Workload::WebSocket(_), _) | (_, Target::WebSocket(_)) => {
                let name = workload.name();
                return Err(format!(
                    "the workload {name} is not for {target}: expected WebSocket messages for ws:// and wss://"
                ));
            }
            (Workload::Http(_), _) => {
                return Err(format!(
                    "HTTP requests cannot be sent to {target}: expected http:// or https://"
                ));
            }
            (_, Target::Http(_)) => {
                let name = workload.name();
                return Err(format!("the workload {name} is not for {target}: expected an HTTP request"));
            }
            (Workload::Churn { .. }, Target::Udp(_)) => {
                return Err(format!("the workload churn is not for {target}: expected tcp or unix"));
            }
            (Workload::Receive { .. }, _) if self.pace != Pace::Closed => {
                return Err("the workload receive has no rate: expected a workload that sends".to_string());
            }
            (Workload::Request { framing, .. }, _) => framing.check()?,
            _ => {}
        }
        if let Some(payload) = workload.payload() {
            let max_bytes = match (workload, target) {
                (_, Target::Udp(_)) => DATAGRAM_PAYLOAD_MAX_BYTES,
                (Workload::Echo { .. } | Workload::Churn { .. }, _) => STREAM_PAYLOAD_MAX_BYTES,
                _ => MESSAGE_MAX_BYTES,
            };
            for bytes in [payload.min_bytes(), payload.max_bytes()] {
                if !(1..=max_bytes).contains(&bytes) {
                    return Err(format!("the payload has {bytes} bytes: expected 1 to {max_bytes}"));
                }
            }
        }
        self.check_pipeline()
    }

    /// What a program that makes sessions decides itself, or cannot have.
    fn check_driven(&self, name: &str) -> Result<(), String> {
        let target = self.target.without_query();
        let is_fitting = !matches!(self.target, Target::WebSocket(_));
        let refused = [
            (self.requests.is_some(), "a list of requests"),
            (self.pipeline > 1, "pipelining"),
            (self.sessions.is_some(), "sessions of its own"),
            (self.requests_per_connection.is_some(), "requests per connection"),
            (!self.sources.is_empty(), "source addresses"),
            (!self.ramp_up.is_zero(), "a ramp-up"),
        ];
        match refused.iter().find(|(is_given, _)| *is_given) {
            _ if !is_fitting => Err(format!(
                "{name} cannot be run against {target}: expected http://, https://, tcp://, tls://, udp:// or \
                     unix:"
            )),
            Some((_, what)) => {
                Err(format!("{what} with {name}: expected none, as a script makes the sessions"))
            }
            None => Ok(()),
        }
    }

    fn check_sessions(&self) -> Result<(), String> {
        let Some(sessions) = &self.sessions else { return Ok(()) };
        sessions.check(DURATION_MAX)?;
        let refuse = |what: String, expected: &str| Err(format!("sessions {what}: expected {expected}"));
        if !self.has_answers() || matches!(self.target, Target::Udp(_)) {
            return refuse(
                format!("with the workload {} for {}", self.workload.name(), self.target.without_query()),
                "echo, request, HTTP or WebSocket over a stream",
            );
        }
        if self.pipeline > 1 {
            return refuse(format!("with a pipeline of {}", self.pipeline), "one request at a time");
        }
        if self.http2 {
            return refuse("over HTTP/2".to_string(), "HTTP/1.1");
        }
        if let Some(count) = self.requests_per_connection {
            return refuse(format!("with {count} requests per connection"), "connections that are kept");
        }
        match &self.pace {
            Pace::Steps(steps) => {
                let shown: Vec<String> = steps.iter().map(ToString::to_string).collect();
                refuse(format!("at rates that change ({})", shown.join(", ")), "a constant rate")
            }
            Pace::Closed | Pace::Open { .. } => Ok(()),
        }
    }

    /// Whether redirects are followed.
    fn follows(&self) -> bool {
        matches!(&self.workload, Workload::Http(request) if request.follow > 0)
    }

    /// Whether each request has an answer.
    fn has_answers(&self) -> bool {
        matches!(
            self.workload,
            Workload::Echo { .. } | Workload::Request { .. } | Workload::Http(_) | Workload::WebSocket(_)
        )
    }

    fn check_requests_per_connection(&self) -> Result<(), String> {
        let Some(count) = self.requests_per_connection else { return Ok(()) };
        if count == 0 {
            Err("0 requests per connection: expected 1 or more".to_string())
        } else if !self.has_answers() || matches!(self.target, Target::Udp(_)) {
            Err(format!("requests per connection ({count}): expected echo, request or HTTP over a stream"))
        } else if self.pipeline > 1 {
            let depth = self.pipeline;
            Err(format!(
                "requests per connection ({count}) with a pipeline of {depth}: expected no pipelining"
            ))
        } else {
            Ok(())
        }
    }

    /// Whether a request asks the target to close the connection.
    fn asks_to_close(&self, request: &HttpRequest) -> bool {
        let listed = self.requests.iter().flat_map(|list| &list.requests);
        request.asks_to_close() || listed.map(|listed| &listed.request).any(HttpRequest::asks_to_close)
    }

    fn check_http2(&self) -> Result<(), String> {
        let Self { streams, connections, target, .. } = self;
        let Workload::Http(request) = &self.workload else {
            return match self.http2 || *streams != 1 {
                true => Err(format!("HTTP/2 is not spoken with {target}: expected http:// or https://")),
                false => Ok(()),
            };
        };
        if !self.http2 {
            let text = format!("{streams} streams per connection: expected HTTP/2, or 1");
            return if *streams == 1 { Ok(()) } else { Err(text) };
        }
        if !cfg!(feature = "http2") {
            return Err(
                "HTTP/2 is not part of this build: expected the feature http2 of ringspun-load".to_string()
            );
        }
        if !(1..=STREAMS_MAX).contains(streams) || streams.saturating_mul(*connections) > CONNECTIONS_MAX {
            return Err(format!(
                "{streams} streams on each of {connections} connections: expected 1 to {STREAMS_MAX} streams, and \
                 {CONNECTIONS_MAX} in total"
            ));
        }
        if self.pipeline > 1 {
            let depth = self.pipeline;
            return Err(format!("pipelining ({depth}) is HTTP/1.1's: expected streams with HTTP/2"));
        }
        if request.expected_body.is_some() || request.follow > 0 || self.requests.is_some() {
            return Err("a text that bodies must contain, redirects that are followed, and lists of requests are for \
                        HTTP/1.1: expected none with HTTP/2"
                .to_string());
        }
        if let Some(header) = request.connection_header() {
            let name = header.name();
            return Err(format!("the header {name} is HTTP/1.1's: expected other headers with HTTP/2"));
        }
        match self.tls.alpn.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "the protocols to offer in TLS are {}: expected none with HTTP/2, which offers h2",
                self.tls.alpn.join(", ")
            )),
        }
    }

    fn check_pipeline(&self) -> Result<(), String> {
        let depth = self.pipeline;
        let request_bytes = match (&self.workload, &self.target) {
            _ if depth == 1 => return Ok(()),
            (_, Target::Udp(_)) => {
                return Err(format!(
                    "pipelining ({depth}) needs ordered responses, which UDP lacks: expected more connections instead"
                ));
            }
            (Workload::WebSocket(_), _) => {
                return Err(format!(
                    "pipelining ({depth}) is not supported over WebSocket: expected more connections instead"
                ));
            }
            (Workload::Http(request), Target::Http(_)) if self.asks_to_close(request) => {
                return Err(format!(
                    "pipelining ({depth}) contradicts the header Connection: close: expected persistent connections"
                ));
            }
            (Workload::Http(request), Target::Http(target)) => match &self.requests {
                Some(list) => list.max_bytes(target),
                None => request.bytes(target).len(),
            },
            (Workload::Echo { payload } | Workload::Request { payload, .. }, _) => payload.max_bytes(),
            (workload, _) => {
                return Err(format!(
                    "pipelining ({depth}) is not for the workload {}: expected a workload with responses",
                    workload.name()
                ));
            }
        };
        match STREAM_PAYLOAD_MAX_BYTES / request_bytes.max(1) {
            max if (1..=max).contains(&depth) => Ok(()),
            max => Err(format!(
                "the pipeline depth is {depth} with requests of {request_bytes} bytes: expected 1 to {}, or \
                 {STREAM_PAYLOAD_MAX_BYTES} bytes in total",
                max.max(1)
            )),
        }
    }
}
