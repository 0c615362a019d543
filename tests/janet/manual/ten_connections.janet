# Create a server on localhost and listen on port 8000.
(def my-server (net/listen "127.0.0.1" "8000"))

# Handle exactly 10 connections 1-by-1
(repeat 10
 (def connection (net/accept my-server))
 (defer (:close connection)
  (net/write connection "Hello from server!")))

# Close server
(:close my-server)
