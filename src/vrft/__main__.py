from vrft.cli import main

main()
