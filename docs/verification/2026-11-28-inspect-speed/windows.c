#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <fcntl.h>
#include <unistd.h>
#include <time.h>
static double now(){struct timespec t;clock_gettime(CLOCK_MONOTONIC,&t);return t.tv_sec*1e3+t.tv_nsec/1e6;}
long pl[20000];int n;
int main(int c,char**v){FILE*f=fopen("places.txt","r");while(fscanf(f,"%ld",&pl[n])==1)n++;
 static char buf[1<<20];int fd=open(v[1],O_RDONLY);posix_fadvise(fd,0,0,POSIX_FADV_RANDOM);
 for(int small=128;small<=4096;small*=2)for(int big=1024;big<=65536;big*=2){double b=1e9;int reads=0;
 for(int r=0;r<40;r++){double t=now();long end=0,prev=-1000000;reads=0;
  for(int i=0;i<n;i++){if(pl[i]+64>end){int w=pl[i]-prev<big/2?big:small;pread(fd,buf,w,pl[i]);end=pl[i]+w;reads++;}prev=pl[i];}
  t=now()-t;if(t<b)b=t;}
 printf("small %d big %d: %.2f ms reads %d\n",small,big,b,reads);}
}
