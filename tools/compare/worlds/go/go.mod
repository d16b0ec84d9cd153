module herd-go

go 1.19
