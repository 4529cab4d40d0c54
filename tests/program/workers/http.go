// Answers by HTTP on the first socket that it inherits. Leaves by SIGTERM.
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	listener, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		panic(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(writer http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(writer, "go "+os.Getenv("FORKD_WORKER"))
	})}
	leave := make(chan os.Signal, 1)
	signal.Notify(leave, syscall.SIGTERM)
	gone := make(chan error)
	go func() {
		<-leave
		gone <- server.Shutdown(context.Background())
	}()
	if err := server.Serve(listener); err != http.ErrServerClosed {
		panic(err)
	}
	<-gone
}
