package resume

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/lynn9388/p2p/internal/safetext"
)

// errProtocol is what the other end gets for a frame that it must not send.
func errProtocol(what string) error {
	return status.Error(codes.InvalidArgument, "grpcstream: resumable stream: "+what)
}

// sizeOf is what a frame counts in its direction's window.
func sizeOf(f *Frame) int { return len(f.GetMessage()) + frameOverhead }

// encode makes a frame of a message.
func encode(m any) (*Frame, error) {
	p, ok := m.(proto.Message)
	if !ok {
		return nil, status.Errorf(codes.Internal, "grpcstream: a resumable stream carries protobuf messages, not a %T", m)
	}
	b, err := proto.Marshal(p)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "grpcstream: encode a message: %v", err)
	}
	return &Frame{Kind: &Frame_Message{Message: b}}, nil
}

// decode makes a message of its frame.
func decode(f *Frame, m any) error {
	p, ok := m.(proto.Message)
	if !ok {
		return status.Errorf(codes.Internal, "grpcstream: a resumable stream carries protobuf messages, not a %T", m)
	}
	if err := proto.Unmarshal(f.GetMessage(), p); err != nil {
		return status.Errorf(codes.Internal, "grpcstream: decode a message: %v", err)
	}
	return nil
}

// endOf is the last frame of a stream whose handler has returned err.
func endOf(err error, trailer metadata.MD) *Frame {
	if _, ok := status.FromError(err); !ok {
		err = status.FromContextError(err).Err() // as gRPC does
	}
	p := status.Convert(err).Proto()
	return &Frame{Kind: &Frame_End{End: &End{
		Code: p.GetCode(), Message: p.GetMessage(), Details: p.GetDetails(), Trailer: fieldsOf(trailer),
	}}}
}

// statusOf is the error of a stream that has ended so, nil for OK.
func statusOf(e *End) error {
	st := status.New(codes.Code(e.GetCode()), safetext.Clean(e.GetMessage()))
	for _, d := range e.GetDetails() {
		m, err := d.UnmarshalNew()
		if err != nil {
			continue // of a kind that is not known here
		}
		if with, err := st.WithDetails(protoadapt.MessageV1Of(m)); err == nil {
			st = with
		}
	}
	return st.Err()
}

func fieldsOf(md metadata.MD) *Fields {
	out := new(Fields)
	for key, values := range md {
		for _, v := range values {
			out.Fields = append(out.Fields, &Field{Key: key, Value: []byte(v)})
		}
	}
	return out
}

func mdOf(f *Fields) metadata.MD {
	md := metadata.MD{}
	for _, f := range f.GetFields() {
		md.Append(f.GetKey(), string(f.GetValue()))
	}
	return md
}
