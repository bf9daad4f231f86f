import ArgumentParser
import SupervisorProgram

BatondCommand.main()
