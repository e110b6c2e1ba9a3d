// A client of record.py, in Go. It is no part of the tests; to record anew, put it in a folder of its own:
//
//	go mod init client && go mod tidy && go build -o client . && python -m tests.xds.conversations.record ...
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/credentials/xds"
	"google.golang.org/grpc/status"
	_ "google.golang.org/grpc/xds"
)

// asBytes is a codec for messages that are bytes.
type asBytes struct{}

func (asBytes) Marshal(message any) ([]byte, error) { return *(message.(*[]byte)), nil }
func (asBytes) Unmarshal(data []byte, message any) error {
	*(message.(*[]byte)) = append([]byte{}, data...)
	return nil
}
func (asBytes) Name() string { return "bytes" }

type asked struct{ Target, Path, Close string }

func main() {
	credentials, err := xds.NewClientCredentials(xds.ClientOptions{FallbackCreds: insecure.NewCredentials()})
	if err != nil {
		panic(err)
	}
	channels := map[string]*grpc.ClientConn{}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var what asked
		if err := json.Unmarshal(lines.Bytes(), &what); err != nil {
			panic(err)
		}
		if what.Close != "" {
			channels[what.Close].Close()
			delete(channels, what.Close)
			fmt.Println("closed")
			continue
		}
		if channels[what.Target] == nil {
			channel, err := grpc.NewClient("xds:///"+what.Target, grpc.WithTransportCredentials(credentials))
			if err != nil {
				panic(err)
			}
			channels[what.Target] = channel
		}
		fmt.Println(call(channels[what.Target], what.Path))
	}
}

func call(channel *grpc.ClientConn, path string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var nothing, answer []byte
	if err := channel.Invoke(ctx, path, &nothing, &answer, grpc.ForceCodec(asBytes{})); err != nil {
		return status.Convert(err).Code().String()
	}
	return string(answer)
}
